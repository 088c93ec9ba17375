"""What one process pushes another loads, bit by bit."""

import pytest


@pytest.mark.slow
def test_everything_travels(server, fresh_process, tmp_path):
    pushed = fresh_process("push", tmp_path, home="cluster")
    assert len({pushed["first"], pushed["second"], pushed["branched"]}) == 3
    repo = server.store.repos["model", "me/walk"]
    assert server.store.repos["model", "me/secret"].private
    assert [commit.title for commit in repo.log("main")] == ["Upload EgoMotionPipeline", "the first", "initial commit"]
    assert set(repo.commit("main").files) == {
        ".gitattributes", "README.md", "model_index.json", "pipeline.py", "denoiser/config.json",
        "denoiser/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json",
        "denoiser/motion_grpo.models.denoiser.py", "scheduler/motion_grpo.schedulers.ego_motion_sde.py",
    }  # fmt: skip

    motions = server.store.repos["dataset", "me/motions"]
    shards = [f"train/open_mocap_smplh-0000{number}.parquet" for number in range(2)]
    assert set(motions.commit("v1").files) == {".gitattributes", "README.md", *shards}
    # A smaller import takes the place of the larger one.
    assert set(motions.commit("main").files) == {".gitattributes", "README.md", shards[0]}
    assert server.store.repos["dataset", "me/motions-of-mine"].private

    loaded = fresh_process("load", pushed["commit"])
    assert loaded["main"] == loaded["part"] == pushed["second"]
    assert loaded["v1"] == loaded[pushed["commit"]] == pushed["first"]
    assert {loaded[name] for name in ("small", "secret", "denoiser", "fp16")} == {pushed["branched"]}
    assert (loaded["eta"], loaded["part eta"], loaded["steps"], loaded["frames"]) == (0.7, 0.7, 2, 20)
    assert loaded["name"] == "me/walk"
    assert loaded["given"]
    assert loaded["rows"] == loaded["rows streamed"] == loaded["rows of mine"] == loaded["rows by datasets"]
    assert (loaded["rows"], loaded["rows v1"]) == (pushed["rows"], pushed["rows v1"])
    assert pushed["rows"] != pushed["rows v1"]

    plain = fresh_process("load_plain", home="guest", HF_TOKEN=None)
    assert (plain["type"], plain["main"], plain["training"]) == ("EgoMotionPipeline", pushed["second"], False)
    assert plain["ours"] == pushed["second"]
    for name in ("pipeline", "denoiser"):
        assert "me/secret cannot be had from the Hub" in plain[name]
        assert "private and there is no token (HF_TOKEN, `hf auth login`)" in plain[name]
    assert (
        "me/motions-of-mine cannot be had from the Hub: there is no such repository, or it is private" in plain["rows"]
    )

    asked = len(server.requests)
    offline = fresh_process("load_offline", HF_HUB_OFFLINE="1")
    assert (offline["main"], offline["v1"]) == (pushed["second"], pushed["first"])
    assert (offline["rows"], offline["rows v1"]) == (pushed["rows"], pushed["rows v1"])
    assert offline["denoiser"] == pushed["branched"]
    assert "HF_HUB_OFFLINE is set, and the cache does not hold it" in offline["absent"]
    assert len(server.requests) == asked
