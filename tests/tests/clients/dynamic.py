"""A custom kind through the dynamic client: python dynamic.py NAMESPACE"""

import json
import sys
import time

from kubernetes import client, config, dynamic
from kubernetes.dynamic import exceptions

GROUP = "dynamic.example.com"
namespace = sys.argv[1]
config.load_kube_config()
definitions = client.ApiextensionsV1Api()


def version(name, storage):
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "steps": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "run": {"type": "string", "default": "true"}},
                        },
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                    }
                },
            }
        },
    }
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}


definitions.create_custom_resource_definition(
    {
        "metadata": {"name": f"recipes.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "recipes", "singular": "recipe", "kind": "Recipe", "categories": ["all"]},
            "versions": [version("v1", True), version("v1beta1", False)],
        },
    }
)
deadline = time.monotonic() + 20
while True:
    found = definitions.read_custom_resource_definition(f"recipes.{GROUP}")
    conditions = {one.type: one.status for one in found.status.conditions or []}
    if conditions.get("Established") == "True":
        break
    assert time.monotonic() < deadline, conditions
    time.sleep(0.05)
assert conditions["NamesAccepted"] == "True", conditions
assert found.status.stored_versions == ["v1"], found.status

api = dynamic.DynamicClient(client.ApiClient())
recipes = api.resources.get(api_version=f"{GROUP}/v1", kind="Recipe")
assert recipes.namespaced and recipes.name == "recipes", recipes


def recipe(name, steps, served="v1"):
    return {"apiVersion": f"{GROUP}/{served}", "kind": "Recipe", "metadata": {"name": name}, "spec": {"steps": steps}}


created = recipes.create(recipe("soup", [{"name": "boil"}]), namespace)
assert created.spec.steps[0].run == "true", created
try:
    recipes.create(recipe("stew", [{"run": "x"}]), namespace)
    sys.exit("an invalid object is accepted")
except exceptions.UnprocessibleEntityError as error:
    assert "spec.steps[0].name" in str(error.body), error.body
patched = recipes.patch(
    {"metadata": {"name": "soup", "labels": {"hot": "yes"}}},
    namespace=namespace,
    content_type="application/merge-patch+json",
)
assert patched.metadata.labels.hot == "yes", patched
for event in recipes.watch(namespace=namespace, timeout=10):
    assert event["type"] == "ADDED" and event["object"].metadata.name == "soup", event
    break

# Two managers share a list by its keys.
for manager, step in [("one", "fry"), ("two", "serve")]:
    recipes.server_side_apply(
        recipe("soup", [{"name": step, "run": manager}]), "soup", namespace, field_manager=manager, force_conflicts=False
    )
both = recipes.get("soup", namespace)
assert sorted(step.name for step in both.spec.steps) == ["boil", "fry", "serve"], both
try:
    recipes.server_side_apply(
        recipe("soup", [{"name": "fry", "run": "another"}]), "soup", namespace, field_manager="two"
    )
    sys.exit("a conflict is not reported")
except exceptions.ConflictError as error:
    assert 'conflict with "one"' in json.loads(error.body)["message"], error.body

# The other version has the same objects.
older = api.resources.get(api_version=f"{GROUP}/v1beta1", kind="Recipe")
listed = older.get(namespace=namespace)
assert [item.apiVersion for item in listed.items] == [f"{GROUP}/v1beta1"], listed
assert listed.items[0].metadata.uid == created.metadata.uid, listed
recipes.delete("soup", namespace)
assert older.get(namespace=namespace).items == []

definitions.delete_custom_resource_definition(f"recipes.{GROUP}")
deadline = time.monotonic() + 20
while True:
    try:
        recipes.get(namespace=namespace)
    except exceptions.NotFoundError:
        break
    assert time.monotonic() < deadline, "the kind is still served"
    time.sleep(0.05)
