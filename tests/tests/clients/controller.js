// A controller of a kind of its own, on the JavaScript client: node controller.js NAMESPACE

const k8s = require("@kubernetes/client-node");
const assert = require("node:assert");

const namespace = process.argv[1];
const group = "script.example.com";
const version = "v1";
const plural = "kettles";
const finalizer = `${group}/kettle`;
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
const kind = { group, version, namespace, plural };
const merge = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch);

// Asks until the answer is right, for 20 s.
async function until(what, ask) {
    const deadline = Date.now() + 20_000;
    for (;;) {
        try {
            return await ask();
        } catch (error) {
            if (Date.now() > deadline) throw new Error(`${what}: ${error.message}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    }
}

async function isMissing(asked) {
    const error = await asked.then(() => undefined, (error) => error);
    assert.equal(error?.code, 404, "it is still there");
}

// Makes a ConfigMap of a kettle, which the kettle owns, and reports it in its status.
async function reconcile(kettle) {
    const name = kettle.metadata.name;
    const finalizers = kettle.metadata.finalizers ?? [];
    const patch = (body) => custom.patchNamespacedCustomObject({ ...kind, name, body }, merge);
    if (kettle.metadata.deletionTimestamp) {
        return finalizers.length ? patch({ metadata: { finalizers: null } }) : undefined;
    }
    if (!finalizers.includes(finalizer)) {
        return patch({ metadata: { finalizers: [finalizer] } });
    }
    const owner = { apiVersion: kettle.apiVersion, kind: kettle.kind, name, uid: kettle.metadata.uid };
    const metadata = { name, ownerReferences: [owner] };
    const body = { metadata, data: { litres: String(kettle.spec.litres) } };
    try {
        await core.createNamespacedConfigMap({ namespace, body });
    } catch (error) {
        assert.equal(error.code, 409);
        await core.patchNamespacedConfigMap({ name, namespace, body }, merge);
    }
    const observed = kettle.metadata.generation;
    if (kettle.status?.observed !== observed) {
        const body = { status: { observed } };
        await custom.patchNamespacedCustomObjectStatus({ ...kind, name, body }, merge);
    }
}

async function define() {
    const spec = { type: "object", properties: { litres: { type: "integer", minimum: 1 } } };
    const status = { type: "object", properties: { observed: { type: "integer" } } };
    const openAPIV3Schema = { type: "object", properties: { spec, status } };
    const served = { name: version, served: true, storage: true, schema: { openAPIV3Schema }, subresources: { status: {} } };
    const names = { plural, singular: "kettle", kind: "Kettle" };
    const body = { metadata: { name: `${plural}.${group}` }, spec: { group, scope: "Namespaced", names, versions: [served] } };
    await definitions.createCustomResourceDefinition({ body });
    await until("the kind is served", () => custom.listNamespacedCustomObject(kind));
}

async function main() {
    await define();
    const path = `/apis/${group}/${version}/namespaces/${namespace}/${plural}`;
    const informer = k8s.makeInformer(config, path, () => custom.listNamespacedCustomObject(kind));
    const failures = [];
    const handle = (kettle) => reconcile(kettle).catch((error) => failures.push(error));
    for (const event of ["add", "update"]) informer.on(event, handle);
    await informer.start();

    const create = (litres) =>
        custom.createNamespacedCustomObject({ ...kind, body: { apiVersion: `${group}/${version}`, kind: "Kettle", metadata: { name: "tea" }, spec: { litres } } });
    const refused = await create(0).catch((error) => error);
    assert.equal(refused.code, 422, String(refused));
    await create(2);
    const name = "tea";
    const works = (litres) => async () => {
        const kettle = await custom.getNamespacedCustomObject({ ...kind, name });
        assert.equal(kettle.status?.observed, kettle.metadata.generation);
        const map = await core.readNamespacedConfigMap({ name, namespace });
        assert.equal(map.data.litres, litres);
    };
    await until("it is reconciled", works("2"));
    await custom.patchNamespacedCustomObject({ ...kind, name, body: { spec: { litres: 3 } } }, merge);
    await until("a change is seen", works("3"));
    await custom.deleteNamespacedCustomObject({ ...kind, name });
    await until("it goes", () => isMissing(custom.getNamespacedCustomObject({ ...kind, name })));
    await until("what it owned is collected", () => isMissing(core.readNamespacedConfigMap({ name, namespace })));
    await informer.stop();
    await definitions.deleteCustomResourceDefinition({ name: `${plural}.${group}` });
    assert.deepEqual(failures, []);
}

main().then(
    () => process.exit(0),
    (error) => {
        console.error(error);
        process.exit(1);
    },
);
