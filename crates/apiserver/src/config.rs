//! Flags, named as kube-apiserver's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Skiff's apiserver: Kubernetes' API over REST and gRPC on one TLS port.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-apiserver", version)]
pub struct Config {
    #[command(flatten)]
    pub common: runtime::flags::CommonFlags,

    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port to listen on; 0 chooses a free one.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,

    /// Where the scheduler serves /healthz, for ComponentStatuses.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10259")]
    pub scheduler_health_address: SocketAddr,

    /// Where the controller manager serves /healthz, for ComponentStatuses.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10257")]
    pub controller_manager_health_address: SocketAddr,

    /// Address at which pods reach the apiserver, for the `kubernetes` Service; default: the
    /// machine's own.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,

    /// URLs of an etcd cluster's members.
    #[arg(long, value_delimiter = ',', value_name = "URL,URL")]
    pub etcd_servers: Vec<String>,
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,

    /// Directory of the embedded store, instead of --etcd-servers.
    #[arg(long, value_name = "DIR", conflicts_with = "etcd_servers")]
    pub embedded_store: Option<PathBuf>,
    /// Serve the embedded store's etcd v3 API on this address as well.
    #[arg(long, value_name = "ADDR", requires = "embedded_store")]
    pub embedded_store_listen: Option<SocketAddr>,

    /// EncryptionConfiguration: how values are stored.
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Use changes of --encryption-provider-config without a restart.
    #[arg(
        long,
        default_value_t = false,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub encryption_provider_config_automatic_reload: bool,

    #[arg(long)]
    pub tls_cert_file: PathBuf,
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Certificate authority of client certificates.
    #[arg(long)]
    pub client_ca_file: PathBuf,

    /// Certificate and key by which extension servers know this one.
    #[arg(long, value_name = "FILE", requires = "proxy_client_key_file")]
    pub proxy_client_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "proxy_client_cert_file")]
    pub proxy_client_key_file: Option<PathBuf>,

    /// Certificate authority of front proxies, which may say in headers whose requests they
    /// forward.
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of their certificates; none: any.
    #[arg(long, value_delimiter = ',', value_name = "NAME,NAME")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that name the user; the first that is there counts.
    #[arg(long, value_delimiter = ',', value_name = "HEADER,HEADER")]
    pub requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', value_name = "HEADER,HEADER")]
    pub requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', value_name = "HEADER,HEADER")]
    pub requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', value_name = "PREFIX,PREFIX")]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Whether requests without credentials are those of `system:anonymous`, of the group
    /// `system:unauthenticated`. With `false` they are refused.
    /// --authentication-config may say more.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub anonymous_auth: bool,

    /// AuthenticationConfiguration: issuers of tokens, and who may come without credentials. Its changes are
    /// used without a restart.
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcFlags,
    #[command(flatten)]
    pub token_webhook: TokenWebhookFlags,
    #[command(flatten)]
    pub authorization: AuthorizationFlags,

    /// Whether profiles of this process are served, below `/debug/pprof`.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub profiling: bool,

    /// Whether Secrets of type bootstrap.kubernetes.io/token in kube-system authenticate new nodes.
    #[arg(
        long,
        default_value_t = false,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub enable_bootstrap_token_auth: bool,

    /// Key that signs ServiceAccount tokens (P-256, PKCS#8 PEM).
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: String,

    #[command(flatten)]
    pub admission: crate::admission::AdmissionFlags,

    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: IpNet,
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),

    /// Whether requests wait for seats in fair queues. With `false` they are only counted, and
    /// refused where there are too many.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub enable_priority_and_fairness: bool,
    /// Seats of requests, together with those of the next flag. Without priority and fairness:
    /// reads in flight at once; 0: no limit.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Seats of requests, together with those of the previous flag. Without priority and fairness:
    /// writes in flight at once; 0: no limit.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,

    #[command(flatten)]
    pub audit: crate::audit::flags::AuditFlags,

    /// Memory for the recent events that watches resume from, in MiB, of all resources together.
    #[arg(long, default_value_t = 32, value_name = "MIB")]
    pub watch_cache_window_mib: usize,

    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
}

/// One issuer of tokens, for those who need no --authentication-config.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OidcFlags {
    /// URL of the issuer.
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// Audience of its tokens.
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// Authorities of the issuer; default: the machine's.
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    pub oidc_username_claim: String,
    /// Default: the issuer's URL and `#`, except of the claim `email`; `-`: none.
    #[arg(long, default_value = "", value_name = "PREFIX")]
    pub oidc_username_prefix: String,
    #[arg(long, default_value = "", value_name = "CLAIM")]
    pub oidc_groups_claim: String,
    #[arg(long, default_value = "", value_name = "PREFIX")]
    pub oidc_groups_prefix: String,
    /// Claims that a token must have.
    #[arg(long, value_name = "CLAIM=VALUE")]
    pub oidc_required_claim: Vec<String>,
    /// Algorithms that its tokens may be signed with.
    #[arg(long, value_delimiter = ',', default_value = "RS256", value_name = "ALG,ALG")]
    pub oidc_signing_algs: Vec<String>,
}

/// A webhook that knows tokens.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TokenWebhookFlags {
    /// Webhook that knows tokens, in the format of kubeconfigs.
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReviews that it is sent.
    #[arg(long, default_value = "v1beta1", value_name = "VERSION")]
    pub authentication_token_webhook_version: String,
    /// How long its answers count.
    #[arg(long, default_value = "2m0s", value_name = "DURATION")]
    pub authentication_token_webhook_cache_ttl: String,
}

/// Who decides what is allowed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AuthorizationFlags {
    /// AuthorizationConfiguration: the authorizers in their order. Its changes are used without a restart.
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Authorizers in their order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny. Default: Node,RBAC.
    #[arg(long, value_name = "MODE,MODE")]
    pub authorization_mode: Option<String>,
    /// Policies of the mode ABAC, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub authorization_policy_file: Option<PathBuf>,
    /// Webhook that authorizes, in the format of kubeconfigs.
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews that it is sent.
    #[arg(long, default_value = "v1beta1", value_name = "VERSION")]
    pub authorization_webhook_version: String,
    /// How long it counts that it allows something.
    #[arg(long, default_value = "5m0s", value_name = "DURATION")]
    pub authorization_webhook_cache_authorized_ttl: String,
    /// How long its other answers count.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    pub authorization_webhook_cache_unauthorized_ttl: String,
}

impl AuthorizationFlags {
    pub fn is_set(&self) -> bool {
        self.authorization_mode.is_some() || self.authorization_webhook_config_file.is_some()
    }
}

impl OidcFlags {
    pub fn is_set(&self) -> bool {
        self.oidc_issuer_url.is_some() || self.oidc_client_id.is_some()
    }
}

impl Config {
    /// The budget of the watch cache's events, in bytes.
    pub fn watch_cache_bytes(&self) -> usize {
        self.watch_cache_window_mib << 20
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parse =
        |part: &str| part.trim().parse::<u16>().map_err(|error| format!("{part:?}: {error}"));
    let (from, to) = text.split_once('-').ok_or("a range looks like 30000-32767")?;
    let (from, to) = (parse(from)?, parse(to)?);
    if from == 0 || from > to {
        return Err(format!("{text} is not a range of ports"));
    }
    Ok((from, to))
}
