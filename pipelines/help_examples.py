"""What people type: the examples at the end of each command's help."""

EXAMPLES = {
    "recover": (
        "recover closed_loop_trajectory.csv -o walk.npz",
        "recover quest.csv -o walk.glb --convention openxr --floor-height 0",
        "recover mps/ -o walk.npz --hands mps/ --stature 1.75 --guidance no_hands",
    ),
    "view": (
        "view walk.npz --trajectory closed_loop_trajectory.csv",
        "view walk_0.npz walk_1.npz --truth recorded.npz --side-by-side",
        "view walk.npz --export scene.html",
    ),
    "export": ("export walk.npz walk.glb", "export DATA walk.bvh --clip cmu/35_01 --split val"),
    "live": (
        "live osc --vmc 127.0.0.1 --view",
        "live openxr --vrchat 127.0.0.1 --stature 1.75",
        "live walk.csv --view --record walk.npz",
    ),
    "export-onnx": ("export-onnx folder", "export-onnx folder --checkpoint runs/a/pipeline --steps 2"),
    "compare": ("compare walk.npz recorded.npz --picture both.png", "compare walk.npz recorded.npz --json"),
    "info": ("info head.csv", "info walk.npz --json"),
    "score": ("score walk.npz", "score walk.npz --trajectory closed_loop_trajectory.csv --json"),
    "demo": ("demo -o demo", "demo --open"),
    "evaluate": (
        "evaluate --dataset DATA --split test --output results",
        "evaluate runs/a/pipeline --dataset DATA --output results --num-samples 5 --baselines mean_pose,upright",
    ),
    "evaluate-critic": ("evaluate-critic ours=runs/critic/model --dataset DATA --policy base --output results",),
    "data": (
        "data amass AMASS --output DATA --num-proc 8",
        "data bvh FOLDER --output DATA",
        "data aria MPS --output DATA",
    ),
    "plot-run": ("plot-run runs/grpo", "plot-run runs/grpo -o curves.png"),
}


def epilog(name: str) -> str:
    """The examples as typer shows them: paragraphs of one line."""
    return "\n\n".join(["Examples:", *(f"  motion-grpo {line}" for line in EXAMPLES[name])])
