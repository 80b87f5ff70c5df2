"""Speed of linear layers in packs beside CSR and dense ones, at equal zeros, in microseconds.

    python experiments/packed.py prepare --out DIR    # prunes and compiles: minutes
    python experiments/packed.py measure --out DIR    # one thread, calls in turns, medians; with nothing else running

Layers are pruned by magnitude from random weights, to gather-scatter packs and to single weights. Of each CSR has the
zeros of both: that of PyTorch, which is MKL's, that of SciPy, and one of our own in C (GCC, 16-bit indices), which of
one row runs four chains or gathers, and of 64 multiplies all rows by a weight. The CSRs get their inputs transposed,
and their outputs stay so, which is not counted; "in rows" our own transposes both, as layers around it would ask.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import nn
from trials import prepare_or_measure, time_in_turns

import patc
from patc.pruning import GatherScatter, Plan, Unstructured, prune_

SIZES = (512, 1024, 2048, 4096)
ROWS = (1, 64)
SCHEMES = {"packs": GatherScatter(), "single weights": Unstructured()}
_CSR = r"""
#include <immintrin.h>
#include <stdint.h>
void chains(long filters, const int32_t *offset, const uint16_t *index, const float *values, const float *x,
            float *y) {
  for (long f = 0; f < filters; f++) {
    float sums[4] = {0};
    long k = offset[f], end = offset[f + 1];
    for (; k + 4 <= end; k += 4)
      for (int c = 0; c < 4; c++) sums[c] += values[k + c] * x[index[k + c]];
    for (; k < end; k++) sums[0] += values[k] * x[index[k]];
    y[f] = sums[0] + sums[1] + sums[2] + sums[3];
  }
}
void gathers(long filters, const int32_t *offset, const uint16_t *index, const float *values, const float *x,
             float *y) {
  for (long f = 0; f < filters; f++) {
    __m256 a = _mm256_setzero_ps(), b = a;
    long k = offset[f], end = offset[f + 1];
    for (; k + 16 <= end; k += 16) {
      __m256i i = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(index + k)));
      __m256i j = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(index + k + 8)));
      a = _mm256_fmadd_ps(_mm256_i32gather_ps(x, i, 4), _mm256_loadu_ps(values + k), a);
      b = _mm256_fmadd_ps(_mm256_i32gather_ps(x, j, 4), _mm256_loadu_ps(values + k + 8), b);
    }
    float lanes[8], sum = 0;
    _mm256_storeu_ps(lanes, _mm256_add_ps(a, b));
    for (int c = 0; c < 8; c++) sum += lanes[c];
    for (; k < end; k++) sum += values[k] * x[index[k]];
    y[f] = sum;
  }
}
typedef float lanes __attribute__((vector_size(64), aligned(4)));
void rows(long filters, const int32_t *offset, const uint16_t *index, const float *values, const float *x, float *y) {
  for (long f = 0; f < filters; f++) {
    lanes a = {0}, b = a, c = a, d = a, *made = (lanes *)(y + 64 * f);
    for (long k = offset[f], end = offset[f + 1]; k < end; k++) {
      const lanes *given = (const lanes *)(x + 64 * index[k]);
      a += values[k] * given[0];
      b += values[k] * given[1];
      c += values[k] * given[2];
      d += values[k] * given[3];
    }
    made[0] = a, made[1] = b, made[2] = c, made[3] = d;
  }
}
void turn(long rows, long columns, const float *x, float *y) {
  for (long r = 0; r < rows; r += 16)
    for (long c = 0; c < columns; c += 16)
      for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) y[(c + i) * rows + r + j] = x[(r + j) * columns + c + i];
}
"""


def _build_csr(folder: Path) -> None:
    source, library = folder / "csr.c", folder / "csr.so"
    source.write_text(_CSR)
    options = ["-O3", "-march=native", "-ffast-math", "-w", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", library, source], check=True)


def _name(scheme: str, size: int, rows: int) -> str:
    return f"{scheme.replace(' ', '-')}-{size}-{rows}"


def prepare(folder: Path, rate: float, target: str) -> None:
    """Prune, compile and write all layers, with what has to come out of them."""
    folder.mkdir(parents=True, exist_ok=True)
    _build_csr(folder)
    for size in SIZES:
        for scheme, kind in SCHEMES.items():
            torch.manual_seed(0)
            layer = nn.Linear(size, size, bias=False).eval()
            prune_(layer, Plan([("*", kind, rate)]))
            torch.save(layer.weight.detach(), folder / f"{_name(scheme, size, 0)}.pt")
            for rows in ROWS:
                patc.compile(layer, (torch.zeros(rows, size),), threads=1, target=target).save(
                    folder / f"{_name(scheme, size, rows)}.patc"
                )
        dense = nn.Linear(size, size, bias=False).eval()
        for rows in ROWS:
            patc.compile(dense, (torch.zeros(rows, size),), threads=1, target=target).save(
                folder / f"{_name('dense', size, rows)}.patc"
            )
        print(f"{size}: ready", flush=True)


def _calls(folder: Path, scheme: str, size: int, rows: int, own: ctypes.CDLL) -> dict[str, Callable[[], Any]]:
    """Return what computes a layer, by name, each checked against float64."""
    torch.manual_seed(1)
    weight, x = torch.load(folder / f"{_name(scheme, size, 0)}.pt"), torch.randn(rows, size)
    wanted, across = x.double() @ weight.double().T, x.T.contiguous()
    model, dense = (patc.load(folder / f"{_name(name, size, rows)}.patc") for name in (scheme, "dense"))
    csr = weight.to_sparse_csr()
    scipy_csr, given = scipy.sparse.csr_matrix(weight.numpy()), across.numpy()
    offset, index = scipy_csr.indptr.astype(np.int32), scipy_csr.indices.astype(np.uint16)
    values, made = scipy_csr.data, np.empty((size, rows), np.float32)
    arguments = [ctypes.c_long(size), *(ctypes.c_void_p(a.ctypes.data) for a in (offset, index, values, given, made))]
    kept = (offset, index, values, given)  # the call holds addresses alone

    def call_own(function: Any) -> np.ndarray:
        function(*arguments)
        assert kept
        return made

    found: dict[str, Callable[[], Any]] = {"patc": lambda: model(x), "patc dense": lambda: dense(x)}
    found["PyTorch CSR"] = lambda: csr @ across
    found["SciPy CSR"] = lambda: scipy_csr @ given
    turned, back = np.empty_like(given), np.empty((rows, size), np.float32)

    def turn(count: int, columns: int, source: np.ndarray, target: np.ndarray) -> None:
        pointers = (ctypes.c_void_p(each.ctypes.data) for each in (source, target))
        own.turn(ctypes.c_long(count), ctypes.c_long(columns), *pointers)

    def in_rows() -> np.ndarray:
        turn(rows, size, x.numpy(), turned)
        call_own(own.rows)
        turn(size, rows, made, back)
        return back.T

    if rows > 1:
        found["in rows"] = in_rows
    for name in ("chains", "gathers") if rows == 1 else ("rows",):
        found[f"own CSR, {name}"] = partial(call_own, getattr(own, name))
    for name, call in found.items():
        if name == "patc dense":
            continue
        result = torch.as_tensor(call())
        error = (result if name == "patc" else result.T).double() - wanted
        if float(error.abs().max() / wanted.abs().max()) > 1e-5:
            raise SystemExit(f"{name} {size}: expected an error of at most 1e-5, found {float(error.abs().max()):.1e}")
    return found


@torch.no_grad()
def measure(folder: Path, turns: int) -> None:
    """Time all, and print a table."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    own = ctypes.CDLL(str((folder / "csr.so").resolve()))
    contestants = "patc | patc dense | PyTorch CSR | SciPy CSR | own CSR | own CSR, in rows"
    print(f"| zeros, size, rows | {contestants} | best CSR / patc | with all in rows |\n| --- |{' ---: |' * 8}")
    for scheme in SCHEMES:
        for size in SIZES:
            for rows in ROWS:
                times = time_in_turns(_calls(folder, scheme, size, rows, own), turns)
                csr = min(found for name, found in times.items() if name.startswith("own"))
                names = ("patc", "patc dense", "PyTorch CSR", "SciPy CSR")
                columns = [*(times[name] for name in names), csr, times.get("in rows", csr)]
                line = " | ".join(f"{1e6 * each:.1f}" for each in columns)
                ratios = f"{min(columns[2:5]) / columns[0]:.2f} | {min(columns[2:4] + columns[5:]) / columns[0]:.2f}"
                print(f"| {scheme}, {size}, {rows} | {line} | {ratios} |", flush=True)


if __name__ == "__main__":
    prepare_or_measure(__doc__, prepare, measure)
