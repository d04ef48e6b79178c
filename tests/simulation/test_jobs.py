"""Jobs files: what a row becomes, and what is said of a row that cannot be."""

import gzip

import pytest

from flowos.model.errors import FileError
from flowos.model.slice import Run
from flowos.simulation.jobs import read_jobs, slice_name

HEADER = (
    "job_id,submit_s,duration_s,engine_type,num_engines,fraction,cpu_cores,mem_gib,engine_models"
)


def jobs_of(tmp_path, *rows, header=HEADER):
    path = tmp_path / "x.jobs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_jobs(path)


def test_a_row_becomes_a_slice_that_asks_for_the_same(tmp_path):
    (job,) = jobs_of(tmp_path, "P0,10,60,gpu,4,1,8,16,V100|A100")
    spec = job.spec("p0", "default", Run())
    (choice,) = spec.engines["workers"].choices
    assert (choice.kind, choice.count, choice.models) == ("gpu", 4, ("V100", "A100"))
    host = spec.hosts["workers"]
    assert (4 * host.cpu_millis, 4 * host.memory_bytes) == (8000, 16 << 30)
    assert spec.together == {"workers": "node"}
    assert (job.submit_s, job.duration_s) == (10, 60)


def test_a_fraction_becomes_a_share_of_one_engine(tmp_path):
    (job,) = jobs_of(tmp_path, "p1,0,60,gpu,1,0.46,6,12,")
    assert job.spec("p1", "default", Run()).engines["workers"].choices[0].share_millis == 460
    assert job.engine_amount == pytest.approx(0.46)


def test_a_job_without_engines_asks_for_one_host(tmp_path):
    (job,) = jobs_of(tmp_path, "p2,0,,cpu,0,1,4,8,")
    spec = job.spec("p2", "default", Run())
    assert not spec.engines
    assert spec.hosts["host"].count == 1
    assert job.duration_s is None


def test_a_gzipped_file_is_read_as_a_plain_one(tmp_path):
    path = tmp_path / "x.jobs.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\na,0,1,gpu,1,1,1,1,\n".encode()))
    assert [job.name for job in read_jobs(path)] == ["a"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,x,1,gpu,1,1,1,1,", ":2: submit_s is 'x'"),
        ("a,0,-1,gpu,1,1,1,1,", ":2: duration_s is '-1'"),
        ("a,0,1,gpu,1,1.5,1,1,", ":2: fraction is 1.5"),
        ("a,0,1,gpu,nan,1,1,1,", ":2: num_engines is 'nan'"),
        ("a,0,1,gpu", ":2: "),
        (",0,1,gpu,1,1,1,1,", ":2: "),
        ("a,0,1,gpu,1.5,1,1,1,", ":2: num_engines is '1.5'"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, words):
    with pytest.raises(FileError) as caught:
        jobs_of(tmp_path, row)
    assert words in str(caught.value)


def test_a_file_without_the_columns_says_what_a_jobs_file_has(tmp_path):
    with pytest.raises(FileError, match=r"lacks the columns job_id, submit_s.*job_id,submit_s"):
        jobs_of(tmp_path, header="a,b,c")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot gzip", b"\xff\xfe\x00"])
def test_what_is_no_text_is_refused_by_its_path(tmp_path, content):
    path = tmp_path / "x.jobs.csv"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"x\.jobs\.csv"):
        read_jobs(path)


def test_a_job_name_becomes_a_valid_slice_name():
    assert slice_name("App_1/Job.7") == "app-1-job-7"
    assert slice_name("___") == "job"
    assert len(slice_name("x" * 200)) == 63
