"""Blobs on the device, sampled through real runs on generated experts."""

from offsim.codec import codec_named
from offsim.study.kept import KeptSampler, can_be_kept
from offsim.study.subject import DrivenSubject
from offsim.testbed.generated import generated_model
from tests.builders import TOY


def test_only_what_the_device_decodes_can_be_kept_as_a_blob() -> None:
    kept = [can_be_kept(codec_named(name)) for name in ("raw", "cuszp", "sz3")]
    assert kept == [False, True, False]


def test_every_use_is_decoded_and_none_is_loaded() -> None:
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), TOY)
    sampler = KeptSampler(subject, subject.store(codec_named("cuszp"), 2.0**-8), 3)
    for seed in (1, 2):
        sampler.round(subject.drawn(1, seed))
    loads = [load for record, _ in sampler._seen for step in record.steps for load in step.loads]
    assert loads
    assert {load.link_bytes for load in loads} == {0}
    figures = sampler.figures(decode_slowdown=1.0)
    assert figures.decode_s.value > 0
    assert figures.expert[0].size == 1
