"""What `gpu.py` writes: a line for each case while it runs, tables for a page, and plots."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


SHOWN_MISSES = 6


def line(result: Mapping[str, Any]) -> str:
    """A result on one line."""
    if "calls" in result:
        parts = [f"{label} {call['ms']:.3g} ms" for label, call in result["calls"].items()]
        parts += [f"{label} failed: {why[:160]}" for label, why in result.get("failed_calls", {}).items()]
        if "compile_seconds" in result:
            parts.append(f"compiled in {result['compile_seconds']}")
        return "; ".join(parts)
    if "missed" in result:
        worst = "none" if result["worst"] is None else f"{result['worst']:.2g}"
        return f"worst {worst}, limit {result['limit']:.2g}; missed: {result['missed'][:SHOWN_MISSES] or 'none'}"
    if "kernels" in result:
        rows = "".join(f"\n    {ms:9.3f} ms {count:5d} × {name[:100]}" for name, ms, count in result["kernels"][:12])
        return f"{result['total_ms']:.2f} ms in {result['launches']} launches{rows}"
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items()
    )


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def markdown(whole: Mapping[str, Any]) -> str:
    """All tables."""
    parts = whole["parts"]
    sections = [f"Measured on {whole['date']}: {whole['machine']}."]
    for name, render in RENDERERS.items():
        done = {case: record["result"] for case, record in parts.get(name, {}).items() if "result" in record}
        failed = {case: record["failed"] for case, record in parts.get(name, {}).items() if "failed" in record}
        if done or failed:
            body = [render(done, parts)] if done else []
            body += [f"{case} failed: {why.splitlines()[0][:200]}" for case, why in failed.items()]
            sections.append("\n\n".join([f"**{TITLES[name]}**", *body]))
    return "\n\n".join(sections) + "\n"


def _rates(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = [[name, f"{result.get('tflops', result.get('gb_per_s')):.0f}"] for name, result in done.items()]
    return table(["rate", "TFLOP/s, of copies GB/s"], rows)


def matrix_rate(parts: Mapping[str, Any]) -> float | None:
    """The card's measured rate in bfloat16, TFLOP/s."""
    return parts.get("rates", {}).get("bf16", {}).get("result", {}).get("tflops")


def _speed(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows, rate = [], matrix_rate(parts)
    for case, result in done.items():
        best = best_of_transformers(result)
        for label, call in result["calls"].items():
            ratio = f"{call['ms'] / best:.2f}" if best else "–"
            memory = "–" if call.get("extra_mib") is None else f"{call['extra_mib']:.0f}"
            share = "–"
            if rate and label == "vidformers" and "tflop" in result:
                share = f"{result['tflop'] / (call['ms'] / 1e3) / rate:.2f}"
            tokens = f"{result['tokens'] / call['ms']:.0f}"
            spread = f"{call['least_ms']:.3g}–{call['most_ms']:.3g}"
            rows.append([case, label, f"{call['ms']:.4g}", spread, ratio, memory, tokens, share])
    columns = [
        "model",
        "library",
        "ms",
        "min–max",
        "ratio",
        "MiB above the weights",
        "tokens a ms",
        "of the matrix rate",
    ]
    return table(columns, rows)


def best_of_transformers(result: Mapping[str, Any]) -> float | None:
    """Milliseconds of the fastest of transformers' ways in a record, `None` without one."""
    return min(
        (call["ms"] for label, call in result["calls"].items() if label.startswith("transformers")), default=None
    )


def _pieces(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = [
        [case, label, f"{call['ms']:.4g}", "–" if call.get("extra_mib") is None else f"{call['extra_mib']:.0f}"]
        for case, result in done.items()
        for label, call in result["calls"].items()
    ]
    return table(["what", "way", "ms", "MiB"], rows)


def _checks(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = []
    for case, result in done.items():
        worst = "–" if result["worst"] is None else f"{result['worst']:.2g}"
        rows.append(
            [
                case,
                worst,
                f"{result['limit']:.2g}",
                "; ".join(result["missed"][:SHOWN_MISSES]).replace("|", "/") or "–",
            ]
        )
    return table(["case", "worst", "limit", "missed"], rows)


def _waits(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = [[case, way, "; ".join(places) or "–"] for case, ways in done.items() for way, places in ways.items()]
    return table(["model", "call", "where it waits"], rows)


def _compiled(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = []
    for case, result in done.items():
        seconds = result.get("compile_seconds", {})
        for label, call in result["calls"].items():
            rows.append([case, label, f"{call['ms']:.4g}", str(seconds.get(label.removesuffix(", compiled"), "–"))])
    return table(["model", "library", "ms", "seconds to compile"], rows)


def _profile(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = [
        [case, name.replace("|", "/")[:80], f"{ms:.2f}", f"{ms / result['total_ms']:.0%}", str(count)]
        for case, result in done.items()
        for name, ms, count in result["kernels"][:10]
    ]
    return table(["model", "kernel", "ms", "share", "launches"], rows)


def _largest(done: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    rows = [
        [
            case,
            str(result.get("batch", "–")),
            f"{result['ms_per_video']:.3g}" if "batch" in result else "–",
            result["until"],
        ]
        for case, result in done.items()
    ]
    return table(["model, library", "batch", "ms a video", "why no more"], rows)


TITLES = {
    "rates": "The card's rates",
    "speed": "Forward passes and steps in bfloat16",
    "compiled": "Compiled",
    "original": "VideoPrism's original under `jax.jit`",
    "largest": "Largest batch",
    "bounded": "Attention with bounded scores, in bfloat16",
    "pieces": "Pieces of a block, in bfloat16 without gradients",
    "numbers": "Single attention calls and their gradients beside float64",
    "waits": "Where a call waits for the device",
    "correctness": "Numbers of every model class beside eager attention in float32",
    "recordings": "Recordings of the originals, in float32 on the device",
    "profile": "Kernels",
}
RENDERERS = {
    "rates": _rates,
    "speed": _speed,
    "compiled": _compiled,
    "original": _compiled,
    "largest": _largest,
    "bounded": _pieces,
    "pieces": _pieces,
    "numbers": _checks,
    "waits": _waits,
    "correctness": _checks,
    "recordings": _checks,
    "profile": _profile,
}


def plots(parts: Mapping[str, Any], out: Path) -> None:
    """A bar for each model: our time over that of transformers' fastest; nothing without matplotlib."""
    results = {case: record["result"] for case, record in parts.get("speed", {}).items() if "result" in record}
    ratios = {
        case: result["calls"]["vidformers"]["ms"] / best
        for case, result in results.items()
        if (best := best_of_transformers(result))
    }
    if not ratios or find_spec("matplotlib") is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.3 * len(ratios)))
    names = list(ratios)[::-1]
    axes.barh(names, [ratios[name] for name in names])
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("vidformers' time / transformers' time")
    figure.tight_layout()
    figure.savefig(out / "speed.png", dpi=120)
    pyplot.close(figure)
