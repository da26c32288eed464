"""Lists the pods of a cluster over gRPC, then prints every change.

    python pods.py [--kubeconfig FILE] [--namespace NAMESPACE] [--events N]

The stubs are generated from proto/ when the program starts; a larger program would generate them
once. The identity is the client certificate of the kubeconfig's current context.
"""

import argparse
import base64
import importlib
import json
import os
import pathlib
import sys
import tempfile

import grpc
import grpc_tools.protoc
import yaml

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load_stubs():
    """Compiles resources.proto and what it refers to, and imports what comes out."""
    out = tempfile.mkdtemp()
    files = ["skiff/api/v1/resources.proto", "skiff/scheduler/v1/scheduler.proto"]
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if grpc_tools.protoc.main(arguments + files) != 0:
        sys.exit("resources.proto does not compile")
    sys.path.insert(0, out)
    module = "skiff.api.v1.resources_pb2"
    return importlib.import_module(module), importlib.import_module(module + "_grpc")


def connect(path):
    """A channel to the cluster of the kubeconfig's current context."""
    config = yaml.safe_load(pathlib.Path(path).read_text())

    def named(kind, name):
        return next(item[kind] for item in config[kind + "s"] if item["name"] == name)

    context = named("context", config["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    credentials = grpc.ssl_channel_credentials(
        root_certificates=base64.b64decode(cluster["certificate-authority-data"]),
        private_key=base64.b64decode(user["client-key-data"]),
        certificate_chain=base64.b64decode(user["client-certificate-data"]),
    )
    return grpc.secure_channel(cluster["server"].removeprefix("https://"), credentials)


def show(what, envelope):
    """One line for a pod: the envelope has its name, the JSON has everything."""
    pod = json.loads(envelope.json)
    phase = pod.get("status", {}).get("phase", "Unknown")
    node = pod.get("spec", {}).get("nodeName", "-")
    print(f"{what:9} {envelope.namespace}/{envelope.name} {phase} {node}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
    parser.add_argument("--kubeconfig", default=default)
    parser.add_argument("--namespace", default="", help="all when it is not given")
    parser.add_argument("--events", type=int, default=0, help="end after so many changes")
    arguments = parser.parse_args()

    messages, services = load_stubs()
    target = messages.Target(version="v1", resource="pods", namespace=arguments.namespace)
    with connect(arguments.kubeconfig) as channel:
        resources = services.ResourcesStub(channel)

        revision = 0
        for page in resources.List(messages.ListRequest(target=target)):
            revision = max(revision, page.revision)
            for pod in page.items:
                show("LISTED", pod)
        print(f"watching from revision {revision}", flush=True)

        seen = 0
        request = messages.WatchRequest(target=target, resource_version=str(revision))
        for batch in resources.Watch(request):
            for event in batch.events:
                show(messages.EventType.Name(event.type), event.object)
                seen += 1
                if arguments.events and seen >= arguments.events:
                    return


if __name__ == "__main__":
    main()
