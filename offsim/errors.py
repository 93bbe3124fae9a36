"""Every error that offsim raises on purpose.

    OffsimError
    ├── InputError          what the user gave cannot be used: one sentence, exit code 2
    │   └── FormatError     a file is not what it claims to be (version, schema, truncated)
    ├── CodecError          a tensor cannot be encoded, or a blob cannot be decoded
    └── RunError            a real run failed (a worker died, a decode failed)

The message is one sentence that names the file or field, the value and the remedy.
"""


class OffsimError(Exception):
    """Base of every error that offsim raises on purpose."""


class InputError(OffsimError):
    """What the user gave cannot be used; the command line prints it and exits with 2."""


class FormatError(InputError):
    """A file is not what it claims to be: wrong version, schema, size or checksum."""


class CodecError(OffsimError):
    """A tensor cannot be encoded under its bound, or a blob cannot be decoded."""


class RunError(OffsimError):
    """A real run failed: a worker died or a decode went wrong."""
