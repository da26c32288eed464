//! `skiff` prints what kubectl prints: a table of commands is run with both tools on one cluster,
//! and their output and success have to be equal. What cannot be (ages, uids, the tool's own name)
//! is masked.

use std::fmt::Write;

use anyhow::{Context, ensure};
use regex::Regex;
use testkit::cluster::CommandOutput;
use testkit::suite::Fixture;
use testkit::tools;

use super::Tool;

/// The minor versions of kubectl whose output is the reference: older ones know less, and newer
/// ones word some things differently.
const REFERENCE_VERSIONS: std::ops::RangeInclusive<u32> = 33..=33;

const MANIFEST: &str = include_str!("parity.yaml");

/// Commands that change nothing, on the objects of the manifest.
const SHOWN: &str = "
get deploy,svc,cm
get all -l app=none
get pods -o wide
get pods --show-labels
get pods -L app,tier
get pods -l app=web --no-headers
get pods -l 'app in (web,x),y!=z'
get pods -l ===
get pods --field-selector=foo=bar
get pods --sort-by=.metadata.name
get pods --sort-by=.status.startTime
get svc --sort-by=.spec.clusterIP
get svc --sort-by=.spec.nothing
get svc --sort-by=.spec.nothing -o name
get deploy web
get deploy/web svc/web
get deploy/web deploy/nope
get pods nope
get pods nope --ignore-not-found
get pods,svc nope
get nope
get nope/x
get deploy.nope
get pod pod/p
get pods p -A
get pods p -l a=b
get -f /nope.yaml
get deploy web -o yaml
get deploy web -o json
get deploy web -o name
get svc,cm,secret -o yaml
get svc,cm -o name
get deploy web -o jsonpath={.metadata.labels}
get deploy web -o jsonpath={.nope}
get deploy web -o 'jsonpath={range .spec.template.spec.containers[*]}{.name}{\"\\n\"}{end}'
get deploy web -o jsonpath={
get deploy web -o jsonpath
get deploy web -o 'go-template={{range .spec.template.spec.containers}}{{.name}}{{\"\\n\"}}{{end}}'
get deploy -o custom-columns=A:.metadata.name,B:.nope,C:.metadata.labels
get deploy -o custom-columns=A:.metadata.name --no-headers
get deploy -o custom-columns=A
get deploy -o foo
get deploy web --subresource=scale -o yaml
get deploy web --subresource=nope
get --raw /version
get --raw /nope
get --raw /apis/apps/v1/namespaces/default/deployments/nope
get --raw /api/v1/namespaces/default/configmaps?labelSelector=a%3Dnone
get DEPLOY
get Deployment web
get pods x y
rollout history deploy/web --revision=1 -o jsonpath={.kind}/{.spec.template.spec.containers[0].image}
rollout history ds/ds --revision=1 -o jsonpath={.kind}/{.spec.template.spec.containers[0].image}
rollout status sts/sts
rollout status ds/ds
rollout status deploy/web --timeout=5s
wait --for=condition=Nope deploy/web ds/ds --timeout=1s
logs deploy/web --since=abc
logs deploy/web --since-time=abc
logs deploy/web --tail=-2
auth can-i --list --as=jane
auth can-i --list --as=system:kube-scheduler
port-forward nope 99999
cordon node-1 nope
scale deploy web --replicas=1 --resource-version=1 --dry-run=client
get --output-watch-events pods
get pods,svc -w
get rs,sts,ds,cj,pvc,sa -o wide
get role,rolebinding,ing,netpol,pdb,quota,limits -o wide
get ns
get nodes
get clusterroles
get pods -n no-such-namespace
logs deploy/web
logs deploy/web -c side
logs deploy/web -c init --tail=1
logs deploy/web --limit-bytes=2
logs deploy/web -c nope
logs nope
logs
exec deploy/web -c main -- echo hi
exec deploy/web -c main -- sh -c 'echo out; echo err >&2; exit 3'
exec deploy/web
exec nope -- ls
attach nope
port-forward nope 1:2
port-forward svc/web 0:9
port-forward deploy/web
cp a b
api-resources
api-resources --namespaced=false
api-resources --api-group=apps -o wide
api-resources -o name
api-resources --verbs=list,create --no-headers
api-versions
explain pod
explain pod.spec.containers
explain pod.spec.containers.image
explain pod.spec.nope
explain deploy.spec.strategy --recursive
explain svc.spec.ports
explain pod.spec.restartPolicy
explain pod.spec.volumes --recursive
events --types=foo
auth can-i create pods
auth can-i create pods --as=jane
auth can-i get pods/log
auth can-i * *
auth can-i get /healthz
auth whoami
auth can-i
config current-context
config view
config view --minify -o jsonpath={.current-context}
config get-contexts
config get-contexts nope
config get-clusters
config use-context nope
config delete-context nope
config rename-context nope c
cordon nope
cordon
certificate approve nope
certificate deny nope
certificate approve
drain nope
taint node nope a=b:NoSchedule
taint node nope
taint pod p a=b:NoSchedule
debug
debug nope
debug nope -t --image=x
debug nope --image=x --profile=general
debug svc/web --image=x --profile=general
completion
version -o foo
";

/// Descriptions: one object of every kind that has a describer of its own, and some others.
const DESCRIBED: &str = "
describe pods -l app=web --show-events=false
describe deploy web --show-events=false
describe rs -l app=web --show-events=false
describe sts sts
describe ds ds --show-events=false
describe cj cron
describe svc web
describe cm conf
describe secret sec
describe sa sa
describe role role
describe rolebinding rb
describe clusterrole view
describe clusterrolebinding cluster-admin
describe ing ing
describe netpol np
describe pdb pdb
describe quota quota
describe limits lr
describe pvc pvc --show-events=false
describe ns kube-system
describe ep web
describe endpointslice -l kubernetes.io/service-name=web
describe controllerrevision -l app=ds
describe pv parity
describe runtimeclass parity
describe ep lone
describe job indexed --show-events=false
describe pod gated --show-events=false
describe clusterrole admin
describe pod nope
describe nope
describe pods -l app=none
describe
rollout history deploy/web
rollout history deploy/web --revision=1
";

/// Commands that change something, each tool in a namespace of its own.
const CHANGING: &str = "
create deployment d1 --image=skiff.test/busybox:1 --replicas=0
create deployment d1 --image=skiff.test/busybox:1
create deploy d2 --image=a/b:1 --image=c --dry-run=client -o yaml
create deploy d2 --image=a/b:1 --port=80 --dry-run=client -o yaml -- sleep 10
create cm c1 --from-literal=a=b --from-literal=c=d
create cm c1 --from-literal=a=b
create deploy Bad_Name --image=x
create ns default
create cm c2 --from-literal=a
create cm c2 --from-file=/nope
create cm c2 --from-literal=a=b --dry-run=client -o yaml
create secret generic s1 --from-literal=a=b
create secret docker-registry s2 --docker-username=u --docker-password=p --dry-run=client -o yaml
create secret tls s3 --cert=/nope --key=/nope
create ns x --dry-run=client -o yaml
create sa sa1
create svc clusterip sv1 --tcp=80:8080
create svc nodeport sv2 --tcp=80 --node-port=30088 --dry-run=client -o yaml
create svc externalname sv3 --external-name=a.b --dry-run=client -o yaml
create svc clusterip sv4
create role r1 --verb=get,list --resource=pods,deployments.apps
create role r2 --verb=get --resource=pods/log,rs.apps --dry-run=client -o yaml
create role r3 --resource=pods
create rolebinding rb1 --role=r1 --user=u1 --group=g1
create rolebinding rb2 --user=u
create clusterrole cr --verb=get --non-resource-url=/foo --dry-run=client -o yaml
create clusterrolebinding crb --clusterrole=view --user=u --serviceaccount=a:b --dry-run=client -o yaml
create job j1 --image=busybox --dry-run=client -o yaml -- date
create cronjob cj1 --image=busybox --schedule='*/1 * * * *' --dry-run=client -o yaml
create quota q1 --hard=pods=100,cpu=2 --dry-run=client -o yaml
create pc pc1 --value=10 --description=x --dry-run=client -o yaml
create pdb pdb1 --selector=a=b --max-unavailable=50% --dry-run=client -o yaml
create ing i1 --rule=a.b/x*=svc:http,tls=sec --class=c --dry-run=client -o yaml
create token nope
create
create -f /nope.yaml
create -f FILE
create -f FILE
run r1 --image=x --env=A=b --port=80 --labels=a=b,c=d --dry-run=client -o yaml
run r1 --image=x --command --dry-run=client -o yaml -- sh -c 'echo x'
run r1 --image='bad image'
run r1 --image=x --rm
run r1 --image=skiff.test/busybox:1 --restart=Never -- sleep 1000
run r2 --image=skiff.test/busybox:1 --restart=Never --labels=a=b -- sleep 1000
expose deploy d1 --port=80 --target-port=8080
expose deploy d1 --name=nop
expose deploy nope --port=80
apply -f FILE
apply -f FILE --dry-run=server
apply -f FILE --server-side --force-conflicts
apply -f /nope.yaml
apply
apply view-last-applied cm/both
diff -f FILE
replace -f FILE
replace --force -f FILE
label cm both a=b
label cm both a=b
label cm both a=c
label cm both a=c --overwrite
label cm both a-
label cm both a-
label cm both x=1 y=2 -o name
label cm both
label cm a=b
label cm nope a=b
label cm both a=b a-
label cm both q=1 --dry-run=client
annotate cm both a=b
annotate cm both a=c
annotate cm both a=c --overwrite
annotate cm both a-
patch cm both -p '{\"data\":{\"a\":\"2\"}}'
patch cm both -p '{\"data\":{\"a\":\"2\"}}'
patch cm both --type=json -p '[{\"op\":\"replace\",\"path\":\"/data/a\",\"value\":\"3\"}]'
patch cm both --type=foo -p {}
patch cm both
patch cm nope -p {}
patch deploy d1 --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":0}}'
scale deploy d1 --replicas=0
scale deploy d1 --replicas=2 --current-replicas=5
scale deploy nope --replicas=2
scale cm both --replicas=2
scale deploy d1 --replicas=0 --dry-run=client
rollout status deploy/nope
rollout status cm/both
rollout history deploy/d1 --revision=9
rollout pause deploy/d1
rollout pause deploy/d1
rollout resume deploy/d1
rollout resume deploy/d1
rollout restart deploy/d1
rollout restart cm/both
rollout undo deploy/d1 --to-revision=9
rollout status
set image deploy/d1 busybox=skiff.test/busybox:1
set image deploy/d1 busybox=x --dry-run=client
set image deploy/d1 nope=x
set image deploy/d1
set env deploy/d1 A=c D=e
set env deploy/d1 A-
set env deploy/d1 A=b A-
set env deploy/d1 --list
set env deploy/d1 --from=configmap/c1 --keys=a
set env cm/both A=b
set resources deploy/d1 --limits=cpu=200m --requests=cpu=20m
set resources deploy/d1
set sa deploy/d1 sa1
set selector svc/sv1 app=foo
set subject rolebinding rb1 --user=u2
wait --for=condition=Foo deploy/d1 --timeout=1s
wait --for=delete cm/nope --timeout=1s
wait --for=condition=Ready pod/nope --timeout=1s
wait --for=jsonpath={.metadata.name}=both cm/both --timeout=5s
wait --for=create cm/nope --timeout=1s
wait --for=foo cm/both
delete cm nope
delete cm nope --ignore-not-found=true
delete cm both --dry-run=client
delete cm/both svc/d1
delete -f FILE
delete pods
delete
delete cm -l a=none
delete cm a --all
delete cm x --cascade=foo
delete pod r1 --now
delete pod r2 --force --grace-period=0
";

pub async fn both_tools_show_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    if let Some(why) = not_comparable(fixture) {
        return tools::missing("kubectl", &why);
    }
    let file = prepare(fixture)?;
    let compared = compare(fixture, SHOWN, [&fixture.namespace; 2], &file)?;
    ensure!(compared > 90, "{compared} commands were compared");
    Ok(())
}

pub async fn both_tools_describe_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    if let Some(why) = not_comparable(fixture) {
        return tools::missing("kubectl", &why);
    }
    let file = prepare(fixture)?;
    compare(fixture, DESCRIBED, [&fixture.namespace; 2], &file)?;
    Ok(())
}

pub async fn both_tools_change_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    if let Some(why) = not_comparable(fixture) {
        return tools::missing("kubectl", &why);
    }
    let namespaces = ["a", "b"].map(|end| format!("{}-{end}", fixture.namespace));
    for namespace in &namespaces {
        fixture.cluster.kubectl(&["create", "namespace", namespace])?;
    }
    let file = file(
        fixture,
        "both.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: both}\ndata: {a: '1'}\n",
    )?;
    let [first, second] = &namespaces;
    let compared = compare(fixture, CHANGING, [first, second], &file);
    for namespace in &namespaces {
        fixture.cluster.kubectl(&["delete", "namespace", namespace])?;
    }
    compared?;
    Ok(())
}

/// Why this machine's kubectl cannot be the reference, if it cannot.
fn not_comparable(fixture: &Fixture) -> Option<String> {
    let (first, last) = (REFERENCE_VERSIONS.start(), REFERENCE_VERSIONS.end());
    match fixture.cluster.kubectl_minor() {
        Ok(minor) if REFERENCE_VERSIONS.contains(&minor) => None,
        Ok(minor) => Some(format!("it is 1.{minor}, the comparison is with 1.{first} to 1.{last}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Creates the manifest's objects and waits until they have settled; returns the manifest's path.
fn prepare(fixture: &Fixture) -> anyhow::Result<String> {
    let all = file(fixture, "all.yaml", MANIFEST)?;
    Tool::Kubectl.run(fixture, &["apply", "-f", &all])?;
    Tool::Kubectl.run(fixture, &["rollout", "status", "deploy/web", "--timeout=60s"])?;
    for (path, kind) in [
        ("--for=jsonpath={.status.observedGeneration}=1", "daemonset/ds"),
        ("--for=jsonpath={.status.desiredHealthy}=0", "pdb/pdb"),
        ("--for=jsonpath={.status.used.services}=2", "quota/quota"),
        ("--for=jsonpath={.endpoints[0].conditions.ready}=true", "endpointslice"),
    ] {
        let all: &[&str] =
            if kind == "endpointslice" { &["-l", "kubernetes.io/service-name=web"] } else { &[] };
        let wait = [&["wait", path, kind, "--timeout=60s"], all].concat();
        Tool::Kubectl.run(fixture, &wait)?;
    }
    Ok(all)
}

fn file(fixture: &Fixture, name: &str, text: &str) -> anyhow::Result<String> {
    let path = fixture.cluster.folder().join(format!("{}-{name}", fixture.namespace));
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path.to_string_lossy().into_owned())
}

/// Runs every line with both tools, each in its namespace; returns the number of lines.
///
/// # Errors
/// Lists every command whose output or success differs.
fn compare(
    fixture: &Fixture,
    commands: &str,
    namespaces: [&str; 2],
    file: &str,
) -> anyhow::Result<usize> {
    let mask = Mask::new(&namespaces)?;
    let mut differences = String::new();
    let mut compared = 0;
    for line in commands.lines().filter(|line| !line.is_empty()) {
        compared += 1;
        let words = words(&line.replace("FILE", file));
        let run = |tool: Tool, namespace: &str| -> anyhow::Result<CommandOutput> {
            let mut command = match tool {
                Tool::Skiff => fixture.cluster.skiff_command(),
                Tool::Kubectl => fixture.cluster.kubectl_command(),
            };
            // The verb's own namespace, if it has one, comes later and wins.
            command.args(&words[..1]).args(["-n", namespace]).args(&words[1..]);
            let output = command.stdin(std::process::Stdio::null()).output()?;
            Ok(CommandOutput {
                success: output.status.success(),
                stdout: mask.apply(&String::from_utf8_lossy(&output.stdout)),
                stderr: mask.apply(&String::from_utf8_lossy(&output.stderr)),
            })
        };
        let kubectl = run(Tool::Kubectl, namespaces[0])?;
        let skiff = run(Tool::Skiff, namespaces[1])?;
        for (what, wanted, got) in [
            ("output", &kubectl.stdout, &skiff.stdout),
            ("errors", &kubectl.stderr, &skiff.stderr),
            ("success", &kubectl.success.to_string(), &skiff.success.to_string()),
        ] {
            if wanted != got {
                write!(differences, "\n== {line}: {what}\n-- kubectl\n{wanted}\n++ skiff\n{got}")?;
            }
        }
    }
    ensure!(differences.is_empty(), "the tools differ:{differences}");
    Ok(compared)
}

/// The words of a command; single quotes group words.
pub fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("there is a word").push(other),
        }
    }
    words
}

/// Patterns of what may differ, and their replacements.
pub struct Mask(Vec<(Regex, &'static str)>);

impl Mask {
    pub fn new(namespaces: &[&str]) -> anyhow::Result<Self> {
        let mut namespaces: Vec<String> =
            namespaces.iter().map(|name| regex::escape(name)).collect();
        namespaces.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let namespaces = namespaces.join("|");
        let patterns = [
            (namespaces.as_str(), "NAMESPACE"),
            // Standing alone: `kubectl` is also part of annotations' names.
            (r"\b(kubectl|skiff)( |\b-client|\b-create)", "TOOL$2"),
            (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( [+]0000( UTC)?|Z)?", "TIME"),
            (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [0-9:]{8} [+]0000", "TIME"),
            // Ages, with their padding.
            (r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b *", "AGE "),
            (r"\b\d+m(\d+s)?( +|$)", "AGE "),
            // Two commands run at two moments; `get --raw` prints JSON without spaces.
            (r#"(resourceVersion"?: ?|Resource Version: +)"?\d+"?"#, "$1"),
            (r"/tmp/(LIVE|MERGED)-\w+", "$1"),
            (
                r"-[bcdfghjklmnpqrstvwxz2456789]{5,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?\b",
                "-HASH",
            ),
            (r"\b\d+\.\d+\.\d+\.\d+\b", "ADDRESS"),
            (r"(?m)^WARNING: version difference.*\n", ""),
            // Only REST warns about it.
            (r"(?m)^Warning: v1 Endpoints is deprecated.*\n", ""),
            // kubectl's flag parser and its server capitalize the same error differently.
            (r"(?m)^Error: ", "error: "),
        ];
        let compiled = patterns
            .into_iter()
            .map(|(pattern, replacement)| Ok((Regex::new(pattern)?, replacement)));
        Ok(Self(compiled.collect::<anyhow::Result<_>>()?))
    }

    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (pattern, replacement)| {
            pattern.replace_all(&text, *replacement).into_owned()
        })
    }
}
