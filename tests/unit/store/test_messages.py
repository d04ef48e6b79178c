"""Are the committed messages those that the generator makes, and do they work?"""

import subprocess
import sys
from pathlib import Path

from flowos_store.wire import etcd3, etcdrpc, kv, rpc

ROOT = Path(__file__).parents[3]


def test_messages_are_made_again_byte_for_byte():
    script = ROOT / "scripts/make_messages.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_etcd3_runs_on_the_messages_that_were_loaded():
    assert etcdrpc.TxnRequest is rpc.TxnRequest
    assert etcd3.__version__ == "0.12.0"
    assert rpc.Compare.MOD == 2
    assert kv.Event.DELETE == 1


def test_fields_of_later_servers_are_there():
    create = rpc.WatchCreateRequest(watch_id=3, fragment=True)
    request = rpc.WatchRequest(create_request=create)
    assert rpc.WatchRequest.FromString(request.SerializeToString()).create_request.watch_id == 3
    progress = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
    assert progress.WhichOneof("request_union") == "progress_request"
    assert rpc.AuthStatusResponse(enabled=True).enabled


def test_store_imports_where_every_warning_is_an_error():
    command = [sys.executable, "-W", "error", "-c", "import flowos_store"]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'store'}"}
    done = subprocess.run(command, env=paths, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
