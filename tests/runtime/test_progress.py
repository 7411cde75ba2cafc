"""Speed and time left from reports, and what the sinks make of them."""

import json

import pytest

from ifguide.runtime.progress import FileSink, Progress, Snapshot, describe
from ifguide.storage.durations import format_seconds


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Recorder:
    def __init__(self):
        self.seen, self.ended, self.said, self.closed = [], [], [], []

    def update(self, snapshot):
        self.seen.append(snapshot)

    def end_stage(self, snapshot, seconds):
        self.ended.append((snapshot.stage, seconds))

    def say(self, text):
        self.said.append(text)

    def close(self, snapshot):
        self.closed.append(snapshot)


def test_steady_work_gives_its_rate_and_the_time_left():
    clock = Clock()
    progress = Progress(clock=clock)
    progress.begin_stage("scores", 2, 10)
    for step in range(11):
        progress.report(100 * step, 5000)
        clock.now += 1
    assert progress.snapshot.rate == pytest.approx(100)
    assert progress.snapshot.seconds_left == pytest.approx(40)


def test_the_rate_follows_a_change_of_speed_halfway_in_the_smoothing_time():
    clock = Clock()
    progress = Progress(clock=clock)
    progress.begin_stage("scores", 0, 1)
    done = 0
    for seconds, speed in ((20, 100), (5, 300)):
        for _ in range(seconds):
            progress.report(done, 100_000)
            clock.now += 1
            done += speed
    progress.report(done, 100_000)
    assert progress.snapshot.rate == pytest.approx(200, rel=0.01)


def test_counting_again_from_the_start_measures_again():
    clock = Clock()
    progress = Progress(clock=clock)
    progress.begin_stage("scores", 0, 1)
    progress.report(0, 10)
    clock.now += 1
    progress.report(9, 10)
    progress.report(0, 10)
    assert progress.snapshot.rate is None
    assert progress.snapshot.seconds_left is None


def test_sinks_are_told_a_few_times_a_second_and_at_every_stage():
    clock, recorder = Clock(), Recorder()
    progress = Progress([recorder], clock=clock)
    progress.begin_stage("model", 0, 2)
    for done in range(1000):  # ten seconds of work
        progress.report(done, 1000)
        clock.now += 0.01
    assert 38 <= len(recorder.seen) <= 42
    progress.end_stage(10.0)
    assert recorder.seen[-1].done == 1000
    assert recorder.ended == [("model", 10.0)]
    progress.begin_stage("factors", 1, 2)
    assert recorder.seen[-1].stage == "factors"
    assert recorder.seen[-1].done == 0


def test_the_end_reaches_every_sink():
    recorder = Recorder()
    progress = Progress([recorder])
    progress.begin_stage("model", 0, 1)
    progress.close("failed", "no room left")
    assert (recorder.closed[0].state, recorder.closed[0].error) == ("failed", "no room left")


def test_a_status_file_is_whole_json_with_every_field(tmp_path):
    path = tmp_path / "status.json"
    progress = Progress([FileSink(path, {"job": "j1", "pid": 7})])
    assert json.loads(path.read_text())["state"] == "running"
    progress.begin_stage("corpus", 0, 3)
    progress.message("two documents were empty")
    written = json.loads(path.read_text())
    assert written["job"] == "j1"
    assert written["message"] == "two documents were empty"
    assert set(written) >= set(Snapshot.__dataclass_fields__) | {"pid", "updated"}
    progress.close("done")
    assert json.loads(path.read_text())["state"] == "done"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_line_says_what_is_known_and_nothing_else():
    assert describe(Snapshot(stage="queries", stage_index=1, n_stages=10)) == "[2/10] queries"
    full = Snapshot(
        stage="scores", stage_index=5, n_stages=10, done=250, total=1000, unit="tokens", rate=50, seconds_left=15
    )
    assert describe(full) == "[6/10] scores  25%  250/1,000 tokens  50 tokens/s  15 s left"


def test_durations_read_like_durations():
    texts = {0.04: "0.0 s", 9.9: "9.9 s", 9.96: "10 s", 59.6: "1 min 0 s", 3599.6: "1 h 0 min", 7800: "2 h 10 min"}
    assert {seconds: format_seconds(seconds) for seconds in texts} == texts
