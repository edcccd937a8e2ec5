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
    assert {word for word, _ in found} <= {
        *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK"),
        *("ENTRYPOINT", "CMD"),
    }
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
    pattern = next(
        re.search(r"grep -E '([^']+)'", rest)[1] for _, rest in steps() if "grep" in rest
    )
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
            names = {entry["name"] for entry in container["env"]}
            assert "RECSYS_SERVICE_TOKEN" in names
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
    built = build(application["args"])
    (deployment,) = application["deployments"]
    assert built._bound_deployment.name == deployment["name"]
    assert built._bound_deployment.num_replicas == deployment["num_replicas"]


def test_the_configuration_of_tensorflow_serving_parses():
    """Against the part of model_server_config.proto that it uses, written down here."""
    pool = pytest.importorskip("google.protobuf.descriptor_pool").DescriptorPool()
    from google.protobuf import descriptor_pb2, message_factory, text_format

    text, number, message = 9, 13, 11  # types of fields: string, uint32, message
    messages = {
        "Latest": [("num_versions", number, "")],
        "Policy": [("latest", message, "Latest")],
        "ModelConfig": [
            *[("name", text, ""), ("base_path", text, ""), ("model_platform", text, "")],
            ("model_version_policy", message, "Policy"),
        ],
        "ModelConfigList": [("config", message, "ModelConfig")],
        "ModelServerConfig": [("model_config_list", message, "ModelConfigList")],
    }
    file = descriptor_pb2.FileDescriptorProto(name="server.proto", syntax="proto2")
    for name, fields in messages.items():
        entry = file.message_type.add(name=name)
        for place, (field, kind, of) in enumerate(fields, 1):
            label = 3 if field == "config" else 1  # repeated, optional
            made = entry.field.add(name=field, number=place, type=kind, label=label)
            if of:
                made.type_name = of
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelServerConfig"))
    content = (DEPLOY / "tensorflow-serving.config").read_text(encoding="utf-8")
    (model,) = text_format.Parse(content, kind()).model_config_list.config
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions >= 2
    assert Path(model.base_path).name == model.name
