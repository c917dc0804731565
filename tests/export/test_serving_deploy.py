"""The files in deploy/ say what TensorFlow Serving, Docker and Kubernetes understand, and agree with one another."""

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from paths import ROOT
from tensorflow_serving.config import model_server_config_pb2

DEPLOY = ROOT / "deploy"
METRICS = "/monitoring/prometheus/metrics"
# The fields of messages that tensorflow-serving-api leaves out, of tensorflow_serving/config/monitoring_config.proto.
MESSAGES = {
    "PrometheusConfig": {"enable": "BOOL", "path": "STRING"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
}


def make_messages():
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="test", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            entry = message.field.add(name=field, number=number, label="LABEL_OPTIONAL")
            if kind in MESSAGES:
                entry.type, entry.type_name = entry.TYPE_MESSAGE, f".test.{kind}"
            else:
                entry.type = getattr(entry, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}")) for name in MESSAGES}


def read_text(name, message):
    return text_format.Parse((DEPLOY / name).read_text(encoding="utf-8"), message)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def kubernetes():
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def container(kubernetes):
    return kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def test_the_configs_of_the_server():
    models = read_text("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = models.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("encoder", "/models/encoder", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1
    messages = make_messages()
    monitoring = read_text("monitoring.config", messages["MonitoringConfig"]()).prometheus_config
    assert (monitoring.enable, monitoring.path) == (True, METRICS)


def test_the_compose_file(compose, container):
    serving = compose["serving"]
    assert serving["image"] == container["image"]
    assert serving["command"] == container["args"]
    exports, *configs = serving["volumes"]
    assert exports.pop("source").startswith("${EXPORTS:?")
    missing = {"create_host_path": False}
    assert exports == {"type": "bind", "target": "/models/encoder", "read_only": True, "bind": missing}
    places = {target: source for source, target, _ in (volume.rsplit(":", 2) for volume in configs)}
    for argument in serving["command"]:
        if "/config/" in argument:
            source = places.pop(argument.split("=")[1])
            assert (DEPLOY / source).is_file()
    assert not places
    assert [port.split(":")[0] for port in serving["ports"]] == ["127.0.0.1"] * 2  # There are no passwords.
    assert [int(port.rsplit(":", 1)[1]) for port in serving["ports"]] == [8500, 8501]


def test_the_kubernetes_manifest(kubernetes, container):
    pod = kubernetes["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert kubernetes["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kubernetes["Service"]["spec"]["selector"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for port in kubernetes["Service"]["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"].startswith("/v1/models/encoder")
        assert container[probe]["httpGet"]["port"] == "rest"
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    assert container["resources"]["limits"]["memory"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    # Training writes what is served.
    of_training = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "training.yaml").read_text("utf-8"))}
    claim = volumes["shared"]["persistentVolumeClaim"]["claimName"]
    assert of_training["PersistentVolumeClaim"]["metadata"]["name"] == claim
    worker = of_training["Job"]["spec"]["template"]["spec"]["containers"][0]
    ((place, root),) = [(one["subPath"], one["mountPath"]) for one in container["volumeMounts"] if "subPath" in one]
    assert root == "/models/encoder" and worker["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
    assert f"--model_dir=/shared/{place.removesuffix('/saved_model')}" in worker["args"]
    kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text(encoding="utf-8"))
    (config,) = kustomization["configMapGenerator"]
    assert config["name"] == volumes["config"]["configMap"]["name"]
    named = [argument.rpartition("/")[2] for argument in container["args"] if "/config/" in argument]
    assert sorted(config["files"]) == sorted(named)
    assert all((DEPLOY / name).is_file() for name in (*config["files"], *kustomization["resources"]))


def test_prometheus_finds_the_metrics(compose, kubernetes):
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["metrics_path"] == METRICS
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in compose and port == "8501"
    annotations = kubernetes["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == METRICS and annotations["prometheus.io/port"] == "8501"
