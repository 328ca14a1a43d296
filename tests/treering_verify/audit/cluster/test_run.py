"""The engine for clusters, on clusters of this machine: the local engine's rows, whatever dies."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.audits import KEY, command, fill, noisy_image, stored, summary
from helpers.hostile import cluster_models
from helpers.places import ROOT
from PIL import Image

from treering_verify.audit.cluster.ray_session import connected
from treering_verify.audit.engine import run_audit
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.options import Options
from treering_verify.audit.output import store as shards
from treering_verify.audit.output.rows import Row
from treering_verify.benchmark.speed.engines import engine_lines, measure_engines
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.detection.exhibits import FOLDER, MOST
from treering_verify.detection.screening import Screening
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.report.audit import write_report

# Ray and what it brings warn of their own affairs, and leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::" + kind)
    for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
]


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """Let workers find the tests' modules."""
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_worker_niceness", "0")  # at 15, the default, they wait for the other tests
        yield


@pytest.fixture(scope="module")
def session(environment: None) -> Iterator[Path]:
    """Run a cluster of one machine with two processors, and give the folder of its logs."""
    from ray._private import worker

    with connected(2):
        yield Path(worker._global_node.get_logs_dir_path())


def audit(inputs: Inputs, output: Path, model: LatentModel, stop: threading.Event | None = None, **options: Any) -> Any:
    """Run an audit on the cluster that the process is connected to."""
    chosen = Options(**{"engine": "ray", "limits": Limits(time_limit=3, readers=1), "batch_size": 4, **options})
    return run_audit(inputs, AuditJudge.of(KEY, model, 1e-6, NULL_INVERSION), output, chosen, stop=stop)


def but_for_times(rows: list[Row]) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(row).items() if name != "seconds"} for row in rows]


@dataclass(frozen=True)
class Harm:
    """An audit of files that do harm, on the cluster and on this machine."""

    deadly: set[str]
    cluster: Path
    local: Path


@pytest.fixture(scope="module")
def harm(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Harm:
    folder = tmp_path_factory.mktemp("harm")
    paths = fill(folder / "in", 40)
    for i in range(10):
        shutil.copy(paths[i % 3], folder / "in" / f"copy-{i}.png")
    for name in ("crash.png", "hang.png", "strange.png", "cafe\udce9.png"):
        noisy_image(len(name) + 99).save(folder / "in" / name)
    (folder / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (folder / "in" / "text").write_text("no image")
    deadly = folder / "in" / "000020-black.png"
    Image.new("RGB", (128, 128)).save(deadly)
    shutil.copy(deadly, folder / "in" / "black-again.png")
    (folder / "list").write_bytes(b"\n".join(sorted(os.fsencode(p) for p in (folder / "in").iterdir())))
    inputs = Inputs(files_from=(str(folder / "list"),))
    list(audit(inputs, folder / "cluster", cluster_models.Hostile(), shard_rows=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treering_verify.audit.inputs.reader_pool._MODULE", "helpers.hostile.reader")
        list(audit(inputs, folder / "local", cluster_models.Hostile(), shard_rows=10, engine="local"))
    return Harm({str(deadly), str(folder / "in" / "black-again.png")}, folder / "cluster", folder / "local")


def test_what_ends_readers_and_workers_costs_itself_and_all_else_is_as_on_one_machine(harm: Harm) -> None:
    rows, local = but_for_times(stored(harm.cluster)), but_for_times(stored(harm.local))
    assert len(rows) == len(local) == 58
    assert [row for row in rows if row["path"] not in harm.deadly] == [
        row for row in local if row["path"] not in harm.deadly
    ]
    assert {row["path"]: row["code"] for row in rows if row["code"] == "worker_died"} == dict.fromkeys(
        harm.deadly, "worker_died"
    )
    assert {row["code"] for row in rows} >= {"reader_crashed", "reader_timeout", "reader_failed", "cut_short"}
    found, expected = summary(harm.cluster), summary(harm.local)
    assert found["finished"] and found["settings_id"] == expected["settings_id"]


def test_a_finished_audit_of_a_cluster_is_finished_for_one_machine(harm: Harm, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [path.stat().st_mtime_ns for path in shards.shard_files(harm.cluster)]
    inputs = Inputs.of(summary(harm.cluster)["inputs"])
    assert len(list(audit(inputs, harm.cluster, cluster_models.Hostile(), shard_rows=10, engine="local"))) == 6
    monkeypatch.setattr("treering_verify.audit.cluster.run.connected", None)  # a cluster is not even asked for
    assert len(list(audit(inputs, harm.cluster, cluster_models.Hostile(), shard_rows=10))) == 6
    assert [path.stat().st_mtime_ns for path in shards.shard_files(harm.cluster)] == before


def test_no_number_of_a_key_is_in_the_clusters_logs(harm: Harm, session: Path) -> None:
    files = [path for path in session.rglob("*") if path.is_file()]
    haystack = b"\n".join(path.read_bytes() for path in files)
    assert len(files) > 5 and b"RayWorker" in haystack
    for number in KEY.numbers.tolist():
        needles = [struct.pack(form, number) for form in ("<d", ">d")] + [repr(abs(number)).encode()]
        assert not any(needle in haystack for needle in needles)
    assert np.float32(KEY.numbers[:8]).tobytes() not in haystack


def test_a_stopped_audit_keeps_what_is_finished_and_one_machine_goes_on(session: Path, tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 120)
    inputs, output, stop = Inputs((str(tmp_path / "in"),)), tmp_path / "out", threading.Event()
    run = audit(inputs, output, cluster_models.Slow(0.05), stop, shard_rows=2)
    next(run)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        list(run)
    found = summary(output)
    assert not found["finished"] and 2 <= found["files"] < 120
    list(audit(inputs, output, NullModel(), shard_rows=2, engine="local"))
    assert [row.path for row in stored(output)] == paths and {row.status for row in stored(output)} == {"ok"}


def test_two_passes_decide_alike_on_a_cluster_and_on_one_machine(session: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 12)
    judge = AuditJudge.of(KEY, NullModel(), 1e-6, NULL_INVERSION, Screening(gate=0.5))
    for engine in ("ray", "local"):
        options = Options(engine=engine, limits=Limits(readers=1), batch_size=4)
        list(run_audit(Inputs((str(tmp_path / "in"),)), judge, tmp_path / engine, options))
    rows = but_for_times(stored(tmp_path / "ray"))
    assert rows == but_for_times(stored(tmp_path / "local")) and {row["decided_by"] for row in rows} == {
        "first",
        "full",
    }


def test_reports_of_a_cluster_need_neither_images_nor_model(session: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 32)
    judge = AuditJudge.of(KEY, NullModel(), 0.999, NULL_INVERSION)  # nearly all of them count as detected
    for engine in ("ray", "local"):
        options = Options(engine=engine, limits=Limits(readers=1), batch_size=4)
        list(run_audit(Inputs((str(tmp_path / "in"),)), judge, tmp_path / engine, options))
    assert sum(row.verdict == "detected" for row in stored(tmp_path / "local")) > MOST
    kept = {
        engine: {path.name: path.read_bytes() for path in (tmp_path / engine / "state" / FOLDER).iterdir()}
        for engine in ("ray", "local")
    }
    assert len(kept["local"]) == MOST and kept["ray"] == kept["local"]
    shutil.rmtree(tmp_path / "in")

    def no_model() -> Any:
        raise AssertionError("the model is not needed")

    page = write_report(tmp_path / "ray", keys=[KEY], load=no_model, root=tmp_path).read_text()
    assert page.count("data:image/jpeg") == MOST and page.count("Agreement with the key") >= MOST


def test_the_benchmark_compares_the_engines_row_by_row(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering_verify.audit.cluster.ray_session.connected", lambda count=0: nullcontext())
    fill(tmp_path / "in", 12)
    judge = AuditJudge.of(KEY, NullModel(), 1e-6, NULL_INVERSION)
    local, ray = measure_engines("null engine", judge, tmp_path / "in", tmp_path, 4, ((2, 1),))
    assert (local["engine"], ray["engine"]) == ("local", "ray, 2 workers of 1 processor")
    assert local["files"] == ray["files"] == 12 and ray["other"] == ray["otherwise"] == ray["apart"] == 0
    lines = dict(engine_lines([local, ray]))
    differing = lines["null engine, 12 files, ray, 2 workers of 1 processor: rows that differ from the local engine's"]
    assert differing == "0, log10 p by at most 0; verdicts: 0"
    assert len(lines) == 3
    assert [row.path for row in stored(tmp_path / "null engine-2-1")] == sorted(map(str, (tmp_path / "in").iterdir()))


def test_an_address_from_outside_the_cluster_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    with pytest.raises(UsageError, match="ray job submit"), connected():
        pass


# --- longer than CI allows --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_machine_that_is_lost_in_the_middle_costs_no_row(environment: None, tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    fill(tmp_path / "in", 400)
    inputs, output = Inputs((str(tmp_path / "in"),)), tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level="error")
        run = audit(inputs, output, cluster_models.Slow(0.1), shard_rows=10)
        next(run)
        deadline = time.monotonic() + 120
        while not (lost := [node for node in nodes if node.node_id in nodes_at_work()]):
            assert time.monotonic() < deadline, "the pool never grew beyond one machine"
            next(run)
        left = 40 - len(shards.shard_files(output))
        cluster.remove_node(lost[0], allow_graceful=False)
        list(run)
        assert left > 0 and len(ray.nodes()) == 3 and sum(node["Alive"] for node in ray.nodes()) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    list(audit(inputs, tmp_path / "local", cluster_models.Slow(0), shard_rows=10, engine="local"))
    assert but_for_times(stored(output)) == but_for_times(stored(tmp_path / "local"))


def nodes_at_work() -> set[str]:
    """Return the machines that have a living worker."""
    from ray._private.state import actors

    return {
        actor["Address"]["NodeID"]
        for actor in actors().values()
        if actor["State"] == "ALIVE" and "MapWorker" in actor["ActorClassName"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_after_a_checkpoint(environment: None, tmp_path: Path, number: int) -> None:
    fill(tmp_path / "in", 300)
    KEY.save(tmp_path / "canary.key.json")
    output = tmp_path / "out"
    options = (tmp_path / "in", "--key", tmp_path / "canary.key.json", "--output", output, "--shard-rows", 5)
    run = command(*options, "--engine", "ray", "--batch-size", 1)
    while not shards.shard_files(output) if output.exists() else True:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    stdout, stderr = run.communicate()
    assert (run.returncode, stdout) == (130, b""), stderr
    assert b"Traceback" not in stderr and b"Interrupted" in stderr
    assert not summary(output)["finished"] and 0 < len(shards.shard_files(output)) < 60
