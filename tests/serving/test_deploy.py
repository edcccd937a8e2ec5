"""What deploy/ says is checked as far as it can be without a cluster."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def steps():
    """Instructions of the container file: (word, rest)."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in whole.splitlines() if line.strip()]


def test_the_container_copies_what_exists_and_runs_as_nobody():
    found = steps()
    known = "FROM WORKDIR COPY RUN ENV USER EXPOSE HEALTHCHECK ENTRYPOINT CMD"
    assert {word for word, _ in found} <= {*known.split()}
    for word, rest in found:
        if word == "COPY" and "--from" not in rest:
            assert all((ROOT / name).exists() for name in shlex.split(rest)[:-1])
    last = dict(found)
    assert last["USER"] != "0" and "root" not in last["USER"]
    command = ast.literal_eval(last["ENTRYPOINT"]) + ast.literal_eval(last["CMD"])
    assert importlib.util.find_spec(command[command.index("-m") + 1])
    health = ast.literal_eval(last["HEALTHCHECK"].split("CMD", 1)[1].strip())
    compile(health[-1], "health", "exec")


def test_the_container_installs_what_the_service_imports():
    """Every line that grep takes is a pinned package, and the service needs no other."""
    pattern = re.search(r"grep -E '([^']+)'", " ".join(rest for _, rest in steps()))[1]
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    taken = {Requirement(line).name for line in pinned if re.search(pattern, line)}
    needed = {"constriction", "msgspec", "numba", "numpy", "safetensors", "scipy", "uvicorn"}
    assert needed | {"httptools", "uvloop"} <= taken
    assert not taken & {"tensorflow", "keras", "ray"}


def test_the_cluster_manifest_is_one_that_ray_serve_takes(monkeypatch, tmp_path):
    yaml = pytest.importorskip("yaml")
    whole = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (whole["apiVersion"], whole["kind"]) == ("ray.io/v1", "RayService")
    cluster = whole["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    mounts = set()
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert "RECSYS_SERVICE_TOKEN" in {entry["name"] for entry in container["env"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            mounts |= {mount["mountPath"] for mount in container["volumeMounts"]}
    config = yaml.safe_load(whole["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert any(application["args"]["model"].startswith(f"{mount}/") for mount in mounts)
    module, name = application["import_path"].split(":")
    build = getattr(importlib.import_module(module), name)

    schema = pytest.importorskip("ray.serve.schema")
    schema.ServeDeploySchema.model_validate(config)
    monkeypatch.delenv("RECSYS_SERVICE_TOKEN", raising=False)
    with pytest.raises(ValueError, match="host"):
        build(application["args"])
    monkeypatch.setenv("RECSYS_SERVICE_TOKEN", "a token of some length")
    built, (deployment,) = build(application["args"]), application["deployments"]
    bound = built._bound_deployment
    assert (bound.name, bound.num_replicas) == (deployment["name"], deployment["num_replicas"])


def test_the_configuration_of_tensorflow_serving_parses():
    """Against the part of model_server_config.proto that it uses, written down here."""
    pool = pytest.importorskip("google.protobuf.descriptor_pool").DescriptorPool()
    from google.protobuf import descriptor_pb2, message_factory, text_format

    fields = {  # of each message; 9 is a string, 13 a uint32, a name another message
        "Latest": {"num_versions": 13},
        "Policy": {"latest": "Latest"},
        "Model": {"name": 9, "base_path": 9, "model_platform": 9, "model_version_policy": "Policy"},
        "Models": {"config": "Model"},
        "Server": {"model_config_list": "Models"},
    }
    file = descriptor_pb2.FileDescriptorProto(name="server.proto", syntax="proto2")
    for message, kinds in fields.items():
        entry = file.message_type.add(name=message)
        for place, (name, kind) in enumerate(kinds.items(), 1):
            how = {"type": kind} if isinstance(kind, int) else {"type": 11, "type_name": kind}
            entry.field.add(name=name, number=place, label=3 if name == "config" else 1, **how)
    pool.Add(file)
    server = message_factory.GetMessageClass(pool.FindMessageTypeByName("Server"))()
    text_format.Parse((DEPLOY / "tensorflow-serving.config").read_text("utf-8"), server)
    (model,) = server.model_config_list.config
    assert model.model_platform == "tensorflow" and Path(model.base_path).name == model.name
    assert model.model_version_policy.latest.num_versions >= 2
