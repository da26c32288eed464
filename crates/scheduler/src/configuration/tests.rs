use super::*;
use crate::plugin::Plugin;
use crate::profile::Strategy;

fn parse(body: &str) -> Result<Configuration, String> {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    Configuration::parse(&format!("{head}{body}"))
}

fn profile(body: &str) -> Profile {
    parse(body).unwrap().profiles.remove(0)
}

#[test]
fn an_empty_configuration_is_the_default() {
    let empty = parse("").unwrap();
    assert_eq!(empty.profiles, [Profile::new("default-scheduler")]);
    assert_eq!(empty.backoff, Backoff::default());
    assert_eq!(empty.leader_elect, None);
}

#[test]
fn profiles_have_their_names_plugins_and_weights() {
    let text = r#"
percentageOfNodesToScore: 40
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
leaderElection: {leaderElect: false, leaseDuration: 15s}
clientConnection: {kubeconfig: /etc/k, qps: 50}
profiles:
- plugins:
    multiPoint: {disabled: [{name: DefaultPreemption}]}
    filter: {disabled: [{name: NodePorts}], enabled: [{name: InterPodAffinity}]}
    score: {disabled: [{name: "*"}], enabled: [{name: ImageLocality, weight: 7}, {name: NodeAffinity}]}
- schedulerName: packing
  percentageOfNodesToScore: 100
"#;
    let read = parse(text).unwrap();
    let [first, second] = &read.profiles[..] else { panic!("{read:?}") };
    assert_eq!((first.scheduler_name, second.scheduler_name), ("default-scheduler", "packing"));
    assert!(!first.preempts && second.preempts);
    assert_eq!(first.filters[0], Plugin::InterPodAffinity, "configured anew, so it runs first");
    assert!(!first.filters.contains(&Plugin::NodePorts));
    assert!(second.filters.contains(&Plugin::NodePorts));
    assert_eq!(first.scores, [(Plugin::ImageLocality, 7), (Plugin::NodeAffinity, 1)]);
    assert_eq!((first.percentage_of_nodes, second.percentage_of_nodes), (40, 100));
    assert_eq!((read.backoff.initial.as_secs(), read.backoff.max.as_secs()), (2, 20));
    assert_eq!(read.leader_elect, Some(false));
    assert_eq!(read.kubeconfig, Some("/etc/k".into()));
}

#[test]
fn plugins_take_arguments() {
    let arguments = profile(
        r#"
profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResources: [example.com/foo]
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 3}, {name: example.com/bar}]
        requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 5, ignorePreferredTermsOfExistingPods: true}
  - name: DefaultPreemption
    args: {minCandidateNodesPercentage: 20, minCandidateNodesAbsolute: 7}
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [a]}]}]
"#,
    )
    .arguments;
    let both = |left: &str, right: &str| vec![(left.to_owned(), 3), (right.to_owned(), 1)];
    assert_eq!(arguments.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    assert_eq!(arguments.fit_resources, both("cpu", "example.com/bar"));
    assert_eq!(arguments.ignored_resources, ["example.com/foo"]);
    assert_eq!(arguments.hard_pod_affinity_weight, 5);
    assert!(arguments.ignores_preferences_of_placed_pods);
    assert_eq!((arguments.candidates_percentage, arguments.candidates_absolute), (20, 7));
    assert_eq!(arguments.default_constraints.unwrap()[0].topology_key, "zone");
    assert_eq!(arguments.added_terms.unwrap().len(), 1);
}

#[test]
fn what_is_wrong_or_unknown_is_refused() {
    let plugins = |sets: &str| format!("profiles: [{{plugins: {{{sets}}}}}]");
    let args = |name: &str, args: &str| {
        format!("profiles: [{{pluginConfig: [{{name: {name}, args: {{{args}}}}}]}}]")
    };
    for (text, expected) in [
        ("foo: 1", "unknown field `foo`"),
        ("profiles: [{foo: 1}]", "unknown field `foo`"),
        (
            "parallelism: 0",
            "parallelism: Invalid value: 0: should be an integer value greater than zero",
        ),
        (
            "podInitialBackoffSeconds: 0",
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "podMaxBackoffSeconds: 1\npodInitialBackoffSeconds: 2",
            "podMaxBackoffSeconds: Invalid value: 1",
        ),
        (
            "percentageOfNodesToScore: 101",
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName: Duplicate value: \"a\"",
        ),
        ("extenders: [{urlPrefix: x}]", "extenders are not supported"),
        ("leaderElection: {resourceName: x}", "leaderElection.resourceName"),
        (
            &plugins("score: {enabled: [{name: Mine}]}"),
            "profiles[0].plugins.score.enabled[0]: plugin \"Mine\" does not exist",
        ),
        (
            &plugins("filter: {enabled: [{name: ImageLocality}]}"),
            "plugin \"ImageLocality\" does not extend it",
        ),
        (
            &plugins("bind: {disabled: [{name: \"*\"}]}"),
            "profiles[0].plugins.bind is not supported",
        ),
        (
            &args("NodeName", ""),
            "profiles[0].pluginConfig[0].args: plugin \"NodeName\" takes no arguments",
        ),
        (&args("Mine", ""), "profiles[0].pluginConfig[0].name: plugin \"Mine\" does not exist"),
        (
            &args("InterPodAffinity", "hardPodAffinityWeight: 101"),
            "args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (&args("InterPodAffinity", "foo: 1"), "unknown field `foo`"),
        (
            &args("NodeResourcesFit", "scoringStrategy: {type: Other}"),
            "Unsupported value: \"Other\"",
        ),
        (
            &args("NodeResourcesFit", "scoringStrategy: {type: RequestedToCapacityRatio}"),
            "Required value",
        ),
        (
            &args("PodTopologySpread", "defaultingType: List, defaultConstraints: [{maxSkew: 0}]"),
            "defaultConstraints[0].maxSkew: Invalid value: 0",
        ),
        (&args("NodeAffinity", "kind: OtherArgs"), "args.kind"),
    ] {
        let problem = parse(text).unwrap_err();
        assert!(problem.contains(expected), "{text}: {problem}");
    }
    let other = Configuration::parse("apiVersion: v1\nkind: Pod\n").unwrap_err();
    assert!(other.contains("no kind \"Pod\" is registered for version \"v1\""), "{other}");
}
