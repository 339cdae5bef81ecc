"""The curve of a refinement as a picture."""

from pathlib import Path

CURVE, PLOT = "refinement.json", "refinement.png"


def save_plot(record: dict, name: str, path: Path) -> None:
    """Held-out bits per byte over seconds of training; over the original's, where that is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve = record["curve"]
    key = "ratio" if all("ratio" in point for point in curve) else "bits_per_byte"
    fig = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots()
    axes.plot([p["seconds"] for p in curve], [p[key] for p in curve], marker="o", color="#0072B2")
    for point in (curve[0], curve[-1]):
        axes.annotate(
            f"{point[key]:.3f}", (point["seconds"], point[key]), (0, 8), textcoords="offset points", ha="center", fontsize=9
        )  # fmt: skip
    if key == "ratio":
        axes.axhline(1, color="#222222", linewidth=1.2)
    axes.margins(0.08, 0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_xlabel("seconds of training")
    what = "held-out bits per byte"
    axes.set_title(f"{name}: {f'{what} over the original model’s' if key == 'ratio' else what}", loc="left", fontsize=11)
    fig.savefig(path, dpi=160, format="png")
