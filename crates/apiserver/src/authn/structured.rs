//! Tokens of other issuers, and who may come without credentials: what `--authentication-config` or the
//! `--oidc-*` flags say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ClientConfig;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::claims::{Mapping, Source};
use super::configuration::{self, Anonymous, Configuration};
use super::distributed::Distributed;
use super::issuer::Issuer;
use super::jwt::{ALGORITHMS, Jwt};
use super::webhook::TokenWebhook;
use crate::config::Config;
use crate::configuration::{Unusable, follow, read};
use crate::request::Subject;
use crate::user::User;

/// How long a verified token is remembered, and how many are.
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBERED: u64 = 10_000;
/// How much later than it says a token may be valid already: clocks differ, as upstream.
const LEEWAY_SECONDS: f64 = 300.0;
/// How long the issuers of a changed configuration may take to answer.
const FIRST_ANSWER: Duration = Duration::from_secs(60);
const FIRST_ANSWER_CHECK: Duration = Duration::from_millis(100);

/// One issuer and what its tokens stand for.
struct Authenticator {
    url: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    issuer: Arc<Issuer>,
    mapping: Mapping,
    distributed: Distributed,
}

struct Remembered {
    user: Arc<User>,
    expires: f64,
}

/// One configuration, ready for use.
struct Set {
    authenticators: Vec<Authenticator>,
    anonymous: Anonymous,
    checked: moka::sync::Cache<String, Arc<Remembered>>,
}

/// Who is let in beside the users of the cluster.
pub struct Authentication {
    set: ArcSwap<Set>,
    /// Whether others are anonymous where the configuration does not say so.
    anonymous: bool,
    /// The issuer of ServiceAccount tokens, which is also the audience of the apiserver.
    own: String,
    webhook: Option<TokenWebhook>,
}

/// A user, and which of the audiences in question the token is for.
pub type Foreigner = (Arc<User>, Vec<String>);

impl Authentication {
    /// Reads the configuration, and follows its file until `shutdown`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn start(config: &Config, shutdown: &CancellationToken) -> Result<Arc<Self>, Unusable> {
        let own = config.service_account_issuer.clone();
        let anonymous = config.anonymous_auth;
        let path = config.authentication_config.clone();
        let (parsed, mappings, text) = match &path {
            Some(_) if config.oidc.is_set() => {
                let problem = "authentication-config file and oidc-* flags are mutually exclusive";
                return Err(Unusable(problem.to_owned()));
            }
            Some(path) => {
                let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let (parsed, mappings) = configuration::parse(&text, &own)?;
                if parsed.anonymous.is_some() && !anonymous {
                    let problem = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file";
                    return Err(Unusable(problem.to_owned()));
                }
                (parsed, mappings, text)
            }
            None => {
                let (parsed, mappings) = configuration::of_flags(config, &own)?;
                (parsed, mappings, String::new())
            }
        };
        let first = parsed.jwt.first().filter(|_| path.is_none());
        let authority = first.map(|one| one.issuer.certificate_authority.clone());
        let authority = authority.unwrap_or_default();
        let set = Set::new(parsed, mappings, anonymous)?;
        let webhook = TokenWebhook::new(config)?;
        let itself = Arc::new(Self { set: ArcSwap::from_pointee(set), anonymous, own, webhook });
        if let Some(path) = path {
            let own = itself.clone();
            let shown = path.clone();
            tokio::spawn(follow(path, text, shutdown.clone(), async move |text| {
                let text = text.map_err(|error| Unusable(error.to_string()));
                let parsed = text.and_then(|text| configuration::parse(&text, &own.own));
                own.adopt(&shown, parsed).await;
            }));
        } else if let Some(path) = config.oidc.oidc_ca_file.clone() {
            let (own, config, shown) = (itself.clone(), config.clone(), path.clone());
            tokio::spawn(follow(path, authority, shutdown.clone(), async move |_| {
                own.adopt(&shown, configuration::of_flags(&config, &own.own)).await;
            }));
        }
        Ok(itself)
    }

    /// Uses another configuration once its issuers have answered.
    async fn adopt(&self, path: &Path, parsed: Result<(Configuration, Vec<Mapping>), Unusable>) {
        let next = async {
            let (parsed, mappings) = parsed?;
            let set = Set::new(parsed, mappings, self.anonymous)?;
            set.answered().await?;
            Ok::<_, Unusable>(set)
        };
        match next.await {
            Ok(set) => {
                self.set.store(Arc::new(set));
                tracing::info!(path = %path.display(), "the configuration of authentication is used");
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the former configuration of authentication is kept");
            }
        }
    }

    /// The apiserver's own audience.
    pub fn audience(&self) -> &str {
        &self.own
    }

    /// Whether a request without credentials is one of the anonymous user.
    pub fn admits_anonymous(&self, subject: &Subject) -> bool {
        let set = self.set.load();
        let conditions = &set.anonymous.conditions;
        let named = || {
            let path = subject.url_path();
            conditions.iter().any(|one| one.path == path)
        };
        set.anonymous.enabled && (conditions.is_empty() || named())
    }

    /// The user of a token for the apiserver or, if there are any, for these audiences; `None` if nobody
    /// knows it.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub async fn foreigner(
        &self,
        now: Timestamp,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Foreigner>, String> {
        let own = std::slice::from_ref(&self.own);
        let wanted = if audiences.is_empty() { own } else { audiences };
        // Who knows nothing of audiences speaks for the apiserver's own.
        if wanted.contains(&self.own)
            && let Some(user) = self.user(now, token).await?
        {
            return Ok(Some((user, own.to_vec())));
        }
        match &self.webhook {
            Some(webhook) => webhook.user(token, wanted, own).await,
            None => Ok(None),
        }
    }

    async fn user(&self, now: Timestamp, token: &str) -> Result<Option<Arc<User>>, String> {
        let set = self.set.load_full();
        if set.authenticators.is_empty() {
            return Ok(None);
        }
        let now = now.as_millisecond() as f64 / 1_000.0;
        if let Some(known) = set.checked.get(token)
            && now <= known.expires
        {
            return Ok(Some(known.user.clone()));
        }
        let Ok(jwt) = Jwt::parse(token) else { return Ok(None) };
        let issuer = jwt.claimed_issuer();
        let Some(own) = set.authenticators.iter().find(|one| one.url == issuer) else {
            return Ok(None);
        };
        let (user, expires) = own.verify(jwt, now).await?;
        let user = Arc::new(user);
        let remembered = Arc::new(Remembered { user: user.clone(), expires });
        set.checked.insert(token.to_owned(), remembered);
        Ok(Some(user))
    }
}

impl Set {
    fn new(
        configuration: Configuration,
        mappings: Vec<Mapping>,
        anonymous: bool,
    ) -> Result<Self, Unusable> {
        let mut authenticators = Vec::new();
        for (one, mapping) in configuration.jwt.into_iter().zip(mappings) {
            let tls = tls(&one.issuer.certificate_authority)?;
            let distributed = Distributed::new(tls.clone(), one.issuer.audiences.clone());
            let issuer = Arc::new(Issuer::new(&one.issuer.url, &one.issuer.discovery_url, tls));
            tokio::spawn(Issuer::initialize(Arc::downgrade(&issuer)));
            let all = || ALGORITHMS.iter().map(|name| (*name).to_owned()).collect();
            authenticators.push(Authenticator {
                url: one.issuer.url,
                audiences: one.issuer.audiences,
                algorithms: one.algorithms.unwrap_or_else(all),
                issuer,
                mapping,
                distributed,
            });
        }
        let flag = Anonymous { enabled: anonymous, conditions: Vec::new() };
        Ok(Self {
            authenticators,
            anonymous: configuration.anonymous.unwrap_or(flag),
            checked: moka::sync::Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(REMEMBER)
                .build(),
        })
    }

    /// Waits until all issuers have answered.
    async fn answered(&self) -> Result<(), Unusable> {
        let until = clock::instant() + FIRST_ANSWER;
        loop {
            let problem = self.authenticators.iter().find_map(|one| one.issuer.problem());
            match problem {
                None => return Ok(()),
                Some(problem) if clock::instant() > until => return Err(Unusable(problem)),
                Some(_) => tokio::time::sleep(FIRST_ANSWER_CHECK).await,
            }
        }
    }
}

impl Authenticator {
    /// The user of a token, and when it ends.
    async fn verify(&self, jwt: Jwt<'_>, now: f64) -> Result<(User, f64), String> {
        if !self.algorithms.iter().any(|name| name == jwt.algorithm()) {
            return Err(format!(
                "oidc: verify token: oidc: malformed jwt: unexpected signature algorithm {:?}",
                jwt.algorithm()
            ));
        }
        if !self.issuer.has_signed(&jwt).await? {
            return Err("oidc: verify token: failed to verify signature: failed to verify id token signature".to_owned());
        }
        let mut claims = jwt.claims();
        let expires = self.check(&claims, now)?;
        if let Source::Claim { claim, .. } = &self.mapping.groups {
            let expanded = self.distributed.expand(&mut claims, claim, now).await;
            expanded.map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        }
        Ok((self.mapping.user(claims)?, expires))
    }

    fn check(&self, claims: &Map<String, Value>, now: f64) -> Result<f64, String> {
        check(claims, &self.audiences, now).map_err(|why| format!("oidc: verify token: {why}"))
    }
}

/// When a token ends that is for one of these audiences.
///
/// # Errors
/// When it is for others, or not valid now.
pub(super) fn check(claims: &Map<String, Value>, own: &[String], now: f64) -> Result<f64, String> {
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !audiences.iter().any(|audience| own.iter().any(|own| own == audience)) {
        return Err(format!("oidc: expected audience in {own:?} got {audiences:?}"));
    }
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(name.to_owned()));
    let expires = time("exp").transpose()?.unwrap_or_default();
    if expires < now {
        return Err("oidc: token is expired".to_owned());
    }
    if time("nbf").transpose()?.is_some_and(|from| from > now + LEEWAY_SECONDS) {
        return Err("oidc: current time before the nbf (not before) time".to_owned());
    }
    Ok(expires)
}

/// Settings that verify an issuer by these authorities, or by the machine's.
fn tls(authority: &str) -> Result<Arc<ClientConfig>, Unusable> {
    let tls = crate::webhook::tls(authority.as_bytes());
    tls.map(Arc::new).map_err(|error| Unusable(error.to_string()))
}
