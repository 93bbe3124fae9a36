// offsim/codec/cuszp.cu as a shared object that runs on the CPU. The kernels are launched by name,
// with pointers to their arguments, as the CUDA driver does it.
#include "cuda_on_cpu.h"

#include KERNEL_SOURCE

#include <string>
#include <utility>

template <class... Parameters, size_t... At>
std::function<void()> prepare(void (*kernel)(Parameters...), void** arguments,
                              std::index_sequence<At...>) {
    return [=] { kernel(*static_cast<Parameters*>(arguments[At])...); };
}

struct Kernel {
    std::string name;
    std::vector<int> sizes;  // of the parameters, in bytes
    std::function<std::function<void()>(void**)> with;
};

template <class... Parameters>
Kernel make(const char* name, void (*kernel)(Parameters...)) {
    return {name, {int(sizeof(Parameters))...}, [kernel](void** arguments) {
                return prepare(kernel, arguments, std::index_sequence_for<Parameters...>());
            }};
}

#define NAMED(kernel) make(#kernel, kernel)
#define TYPED(name) NAMED(rates_##name), NAMED(payloads_##name), NAMED(decode_##name)

static const std::vector<Kernel> KERNELS = {NAMED(lengths), NAMED(starts), TYPED(f32), TYPED(bf16),
                                            TYPED(fp16)};

static const Kernel* find(const char* name) {
    for (const Kernel& kernel : KERNELS) {
        if (kernel.name == name) return &kernel;
    }
    return nullptr;
}

// The number of parameters, and their sizes into `sizes`; -1 for no such kernel.
extern "C" int parameters(const char* name, int* sizes) {
    const Kernel* kernel = find(name);
    if (!kernel) return -1;
    for (size_t i = 0; i < kernel->sizes.size(); ++i) sizes[i] = kernel->sizes[i];
    return int(kernel->sizes.size());
}

extern "C" void launch(const char* name, unsigned grid, unsigned block, void** arguments,
                       int reverse) {
    cpu::body = find(name)->with(arguments);
    cpu::reversed = reverse;
    blockDim.x = block;
    for (unsigned turn = 0; turn < grid; ++turn) {
        blockIdx.x = reverse ? grid - 1 - turn : turn;
        cpu::run_block(block);
    }
}
