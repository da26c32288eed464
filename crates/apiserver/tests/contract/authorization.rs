//! Authorizers that are configured, and those outside.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// A review's answer.
fn answer(review: &Value, allowed: bool, denied: bool, reason: &str) -> Reply {
    Reply::Json(json!({"apiVersion": review["apiVersion"], "kind": "SubjectAccessReview",
        "status": {"allowed": allowed, "denied": denied, "reason": reason}}))
}

/// Allows ann everything, denies deletions of secrets, and has no opinion about the rest.
fn judge(review: &Value) -> Reply {
    let (spec, asked) = (&review["spec"], &review["spec"]["resourceAttributes"]);
    if asked["resource"] == "secrets" && asked["verb"] == "delete" {
        return answer(review, false, true, "secrets stay");
    }
    answer(review, spec["user"] == "ann", false, "")
}

struct Setup {
    folder: tempfile::TempDir,
    webhook: Webhook,
}

impl Setup {
    async fn new() -> Self {
        let webhook = Webhook::start("127.0.0.1", &["127.0.0.1"], judge).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "w", "cluster": {"server": format!("https://127.0.0.1:{}/authorize", webhook.port),
                "certificate-authority-data": webhook.ca_bundle()}}],
            "users": [], "contexts": [{"name": "c", "context": {"cluster": "w", "user": ""}}]});
        std::fs::write(folder.path().join("webhook.yaml"), text.to_string()).unwrap();
        Self { folder, webhook }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The section of the webhook.
    fn section(&self, more: &str) -> String {
        format!(
            "{{type: Webhook, name: outside, webhook: {{timeout: 1s, subjectAccessReviewVersion: v1, \
             connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}, {more}}}}}",
            self.path("webhook.yaml")
        )
    }

    /// Writes a configuration; the flag that names it.
    fn configure(&self, sections: &[&str]) -> String {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{}]\n",
            sections.join(", ")
        );
        std::fs::write(self.path("next"), text).unwrap();
        std::fs::rename(self.path("next"), self.path("authorization.yaml")).unwrap();
        format!("--authorization-config={}", self.path("authorization.yaml"))
    }
}

/// A way to fail, by a name.
type Named = (&'static str, fn(&Value) -> Reply);

const RBAC: &str = "{type: RBAC, name: rbac}";
const NODE: &str = "{type: Node, name: node}";

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(testkit::wait::TIMEOUT, waiting).await;
    assert!(waited.is_ok(), "waited in vain for {what}");
}

#[tokio::test]
async fn the_first_authorizer_with_an_opinion_decides() {
    let setup = Setup::new().await;
    let section = setup.section("failurePolicy: NoOpinion");
    let flag = setup.configure(&[NODE, &section, RBAC]);
    let server = Server::start_with(&[&flag]).await;
    let (ann, bob) = (server.rest_as("ann", &["team"]), server.rest_as("bob", &[]));
    ann.get(&format!("{MAPS}?labelSelector=a%3Db,c&fieldSelector=metadata.name%3Dm"))
        .await
        .expect(200);
    let mut asked = setup.webhook.requests.lock().last().unwrap()["spec"].clone();
    let extra = asked.as_object_mut().unwrap().remove("extra").unwrap();
    let id = extra["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("X509SHA256="), "{id}");
    let expected = json!({"user": "ann", "groups": ["team", "system:authenticated"],
        "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1",
            "resource": "configmaps", "name": "m",
            "fieldSelector": {"requirements": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]},
            "labelSelector": {"requirements": [{"key": "c", "operator": "Exists"}, {"key": "a", "operator": "In", "values": ["b"]}]}}});
    assert_eq!(asked, expected);
    let refused = bob.get(MAPS).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    // RBAC is asked after it, and a denial is final.
    let admin = server.admin();
    let binding = json!({"metadata": {"name": "bob"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin
        .post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding)
        .await
        .expect(201);
    until("the role", async || bob.get(MAPS).await.code == 200).await;
    let secret = "/api/v1/namespaces/default/secrets/s";
    let refused = bob.delete(secret).await.expect(403);
    assert_eq!(
        refused["message"],
        "secrets \"s\" is forbidden: User \"bob\" cannot delete resource \"secrets\" in API group \"\" in the namespace \"default\": secrets stay"
    );
    // Impersonation is asked about as well; masters may do everything.
    let headers = [("impersonate-user", "carl")];
    assert_eq!(ann.ask("GET", MAPS, &headers, Vec::new()).await.code, 403, "carl may not");
    assert_eq!(admin.delete(secret).await.code, 404);
    // Reviews say the same.
    let review = async |user: &str, verb: &str, resource: &str| {
        let spec = json!({"user": user, "resourceAttributes": {"verb": verb, "resource": resource, "namespace": "default"}});
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        admin.post(REVIEWS, &body).await.expect(201)["status"].clone()
    };
    assert_eq!(review("ann", "get", "pods").await, json!({"allowed": true}));
    let denied = json!({"allowed": false, "denied": true, "reason": "secrets stay"});
    assert_eq!(review("ann", "delete", "secrets").await, denied);
    assert_eq!(review("zoe", "get", "pods").await["allowed"], false);
    // An answer counts for a while.
    let (before, zoe) = (setup.webhook.requests.lock().len(), server.rest_as("zoe", &[]));
    for _ in 0..5 {
        ann.get("/api/v1/namespaces").await.expect(200);
        assert_eq!(zoe.get(MAPS).await.code, 403);
    }
    assert_eq!(setup.webhook.requests.lock().len(), before + 2);
    let metrics = admin.get("/metrics").await.text;
    let denied = "apiserver_authorization_decisions_total{decision=\"denied\",name=\"outside\",type=\"Webhook\"} 2";
    assert!(metrics.contains(denied), "{metrics}");
    server.stop().await;
}

/// What expressions ask is put to the webhook, one thing after the other, and its answers count.
#[tokio::test]
async fn expressions_ask_the_webhook() {
    let setup = Setup::new().await;
    let section = setup.section("failurePolicy: NoOpinion");
    let server = Server::start_with(&[&setup.configure(&[NODE, &section, RBAC])]).await;
    let (admin, ann) = (server.admin(), server.rest_as("ann", &["team"]));
    let api = "/apis/admissionregistration.k8s.io/v1";
    let first = "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('spec.nodeName=n').check('list')";
    let second = "authorizer.group('').resource('secrets').name('s').check('delete')";
    let third = "authorizer.serviceAccount('default', 'robot').path('/healthz').check('get')";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [{
        "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "matchConditions": [{"name": "may", "expression": format!("{first}.allowed()")}],
        "validations": [{"expression": "object.metadata.name != 'no'"},
            {"expression": format!("{first}.allowed() && {second}.reason() == 'secrets stay'")},
            {"expression": format!("!({third}.allowed() || {third}.errored())")}]}});
    admin.post(&format!("{api}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    admin.post(&format!("{api}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    let map = |name: &str| json!({"metadata": {"name": name}});
    until("the policy", async || {
        admin.delete(&format!("{MAPS}/no")).await;
        ann.post(MAPS, &map("no")).await.code == 422
    })
    .await;
    ann.post(MAPS, &map("yes")).await.expect(201);
    let requests = setup.webhook.requests.lock().clone();
    let asked = |test: &dyn Fn(&Value) -> bool| requests.iter().any(|one| test(&one["spec"]));
    assert!(asked(&|spec| spec["resourceAttributes"]["labelSelector"]["requirements"]
        == json!([{"key": "a", "operator": "In", "values": ["b"]}])
        && spec["resourceAttributes"]["fieldSelector"]["requirements"]
            == json!([{"key": "spec.nodeName", "operator": "In", "values": ["n"]}])));
    assert!(asked(&|spec| spec["user"] == "system:serviceaccount:default:robot"));
    server.stop().await;
}

#[tokio::test]
async fn conditions_choose_what_the_webhook_is_asked() {
    let setup = Setup::new().await;
    let conditions = "failurePolicy: Deny, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [\
        {expression: 'has(request.resourceAttributes)'}, {expression: 'request.resourceAttributes.resource == \"secrets\"'}]";
    let flag = setup.configure(&[&setup.section(conditions), "{type: AlwaysAllow, name: all}"]);
    let server = Server::start_with(&[&flag]).await;
    let zoe = server.rest_as("zoe", &[]);
    zoe.get(MAPS).await.expect(200);
    zoe.get("/metrics").await;
    assert_eq!(setup.webhook.requests.lock().len(), 0);
    assert_eq!(zoe.delete("/api/v1/namespaces/default/secrets/s").await.code, 403);
    assert_eq!(setup.webhook.requests.lock().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_webhook_that_fails_allows_nothing() {
    for (policy, others) in [("NoOpinion", 200), ("Deny", 403)] {
        let setup = Setup::new().await;
        let section = setup.section(&format!("failurePolicy: {policy}"));
        let conditional = "{type: AlwaysAllow, name: all}";
        let flag = setup.configure(&[&section, conditional]);
        let server = Server::start_with(&[&flag]).await;
        let zoe = server.rest_as("zoe", &[]);
        let behaviours: [Named; 6] = [
            ("a", |_| Reply::Status(403, "no")),
            ("b", |_| Reply::Redirect),
            ("c", |_| Reply::Long(4 << 20)),
            ("d", |review| answer(review, true, true, "")),
            ("e", |review| {
                Reply::Json(json!({"apiVersion": "authorization.k8s.io/v1beta1",
                "kind": "SubjectAccessReview", "spec": review["spec"], "status": {"allowed": true}}))
            }),
            ("f", |_| Reply::Hang),
        ];
        for (name, behaviour) in behaviours {
            setup.webhook.behave(behaviour);
            let code = zoe.get(&format!("/api/v1/namespaces/{name}/configmaps")).await.code;
            assert_eq!(code, others, "{policy} {name}");
        }
        // Others than those who need it do not wait.
        let begun = clock::instant();
        server.admin().get("/api/v1/namespaces").await.expect(200);
        assert!(begun.elapsed() < Duration::from_secs(1));
        server.stop().await;
    }
}

#[tokio::test]
async fn changes_of_the_file_are_used() {
    let setup = Setup::new().await;
    let flag = setup.configure(&[NODE, RBAC]);
    let server = Server::start_with(&[&flag]).await;
    let zoe = server.rest_as("zoe", &[]);
    assert_eq!(zoe.get(MAPS).await.code, 403);
    setup.configure(&["{type: AlwaysAllow, name: all}"]);
    until("the change", async || zoe.get(MAPS).await.code == 200).await;
    setup.configure(&[]);
    setup.configure(&["{type: AlwaysDeny, name: none}"]);
    until("the change", async || zoe.get(MAPS).await.code == 403).await;
    let refused = zoe.get(MAPS).await.expect(403);
    assert!(refused["message"].as_str().unwrap().ends_with(": Everything is forbidden."));
    server.stop().await;
    let why = "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined";
    let refusal = Server::refusal(&[&flag, "--authorization-mode=RBAC"]).await;
    assert!(refusal.contains(why), "{refusal}");
    let refusal = Server::refusal(&["--authorization-mode=Webhook"]).await;
    assert!(refusal.contains("authorization config file not passed"), "{refusal}");
    let refusal = Server::refusal(&["--authorization-mode=ABAC"]).await;
    let missing = "authorization-mode ABAC's authorization policy file not passed";
    assert!(refusal.contains(missing), "{refusal}");
    let refusal = Server::refusal(&["--authorization-mode=Other"]).await;
    assert!(refusal.contains("authorization-mode \"Other\" is not a valid mode"), "{refusal}");
    // The flags of a webhook, in the older version of reviews.
    let file = format!("--authorization-webhook-config-file={}", setup.path("webhook.yaml"));
    let server = Server::start_with(&["--authorization-mode=RBAC,Webhook", &file]).await;
    server.rest_as("ann", &[]).get(MAPS).await.expect(200);
    let review = setup.webhook.requests.lock().last().unwrap().clone();
    assert_eq!(review["apiVersion"], "authorization.k8s.io/v1beta1");
    assert_eq!(review["spec"]["group"], json!(["system:authenticated"]));
    server.stop().await;
}

#[tokio::test]
async fn policies_of_a_file_allow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.jsonl");
    let version = "abac.authorization.kubernetes.io/v1beta1";
    let policy = json!({"apiVersion": version, "kind": "Policy",
        "spec": {"user": "ann", "namespace": "default", "resource": "configmaps", "readonly": true}});
    std::fs::write(&path, format!("# who may do what\n{policy}\n")).unwrap();
    let file = format!("--authorization-policy-file={}", path.display());
    let server = Server::start_with(&["--authorization-mode=Node,RBAC,ABAC", &file]).await;
    let (ann, bob) = (server.rest_as("ann", &[]), server.rest_as("bob", &[]));
    ann.get(MAPS).await.expect(200);
    let refused = bob.get(MAPS).await.expect(403);
    assert!(refused["message"].as_str().unwrap().ends_with(": No policy matched."), "{refused}");
    let map = json!({"metadata": {"name": "m"}});
    ann.post(MAPS, &map).await.expect(403);
    // The rights of roles count beside them.
    server.admin().post(MAPS, &map).await.expect(201);
    server.stop().await;
    let refusal = Server::refusal(&["--authorization-mode=RBAC", &file]).await;
    let why = "cannot specify --authorization-policy-file without mode ABAC";
    assert!(refusal.contains(why), "{refusal}");
    std::fs::write(&path, "nonsense").unwrap();
    let refusal = Server::refusal(&["--authorization-mode=ABAC", &file]).await;
    assert!(
        refusal.contains("error reading policy file") && refusal.contains("line 1"),
        "{refusal}"
    );
}

/// A refusal of the node authorizer says what is wrong.
#[tokio::test]
async fn a_kubelet_is_told_why_it_may_not() {
    let server = Server::start().await;
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let none = "no relationship found between node 'n1' and this object";
    let one = "can only get individual resources of this type";
    let default = "/api/v1/namespaces/default";
    let table: &[(&str, &str, &str)] = &[
        ("GET", "/api/v1/nodes", "node 'n1' cannot read all nodes, only its own Node object"),
        ("GET", "/api/v1/nodes/n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("GET", "/api/v1/pods", "can only list/watch pods with spec.nodeName field selector"),
        ("GET", &format!("{default}/pods/p"), none),
        ("GET", &format!("{default}/secrets"), "No Object name found"),
        ("GET", "/api/v1/secrets", "can only read namespaced object of this type"),
        ("GET", &format!("{default}/secrets/s"), none),
        ("DELETE", &format!("{default}/configmaps/c"), "can only read resources of this type"),
        ("GET", &format!("{default}/persistentvolumeclaims"), one),
        ("GET", &format!("{default}/persistentvolumeclaims/c"), none),
        (
            "GET",
            &format!("{default}/persistentvolumeclaims/c/status"),
            "can only get/update/patch this type",
        ),
        ("GET", "/api/v1/persistentvolumes/v", none),
        ("DELETE", "/api/v1/persistentvolumes/v", one),
        ("GET", &format!("{default}/serviceaccounts/a"), none),
        ("POST", &format!("{default}/serviceaccounts/a/token"), none),
        (
            "POST",
            &format!("{default}/serviceaccounts"),
            "can only create tokens for individual service accounts",
        ),
        ("GET", "/apis/storage.k8s.io/v1/volumeattachments", one),
        (
            "GET",
            "/apis/storage.k8s.io/v1/csinodes",
            "can only get, create, update, patch, or delete a CSINode",
        ),
        (
            "GET",
            "/apis/storage.k8s.io/v1/csinodes/n2",
            "can only access CSINode with the same name as the requesting node",
        ),
        (
            "GET",
            "/apis/resource.k8s.io/v1/resourceslices",
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
        (
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            "can only get, create, update, patch, or delete a node lease",
        ),
        (
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            "can only access node lease with the same name as the requesting node",
        ),
    ];
    for (method, path, reason) in table {
        let answer = kubelet.send(method, path, &json!({})).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        let told = message.ends_with(&format!(": {reason}"));
        assert!(answer.code == 403 && told, "{method} {path}: {}", answer.text);
    }
    let nameless = server.rest_as("system:node:", &["system:nodes"]);
    let refused = nameless.get("/api/v1/nodes").await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with(": unknown node for user \"system:node:\""), "{message}");
    server.stop().await;
}
