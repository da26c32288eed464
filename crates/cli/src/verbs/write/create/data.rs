//! ConfigMaps and Secrets: keys and values from the command line and from files.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::request::generate::metadata;

#[derive(clap::Args)]
pub struct ConfigMap {
    name: String,
    #[command(flatten)]
    data: Data,
    /// Make it immutable
    #[arg(long)]
    immutable: bool,
}

#[derive(clap::Subcommand)]
pub enum Secret {
    /// Any keys and values
    Generic {
        name: String,
        #[command(flatten)]
        data: Data,
        #[arg(long = "type", default_value = "")]
        kind: String,
    },
    /// Credentials of an image registry
    DockerRegistry {
        name: String,
        #[arg(long, default_value = "https://index.docker.io/v1/")]
        docker_server: String,
        #[arg(long, default_value = "")]
        docker_username: String,
        #[arg(long, default_value = "")]
        docker_password: String,
        #[arg(long, default_value = "")]
        docker_email: String,
        /// A .dockerconfigjson file
        #[arg(long, value_name = "[KEY=]FILE")]
        from_file: Vec<String>,
    },
    /// A certificate and its key
    Tls {
        name: String,
        #[arg(long)]
        cert: String,
        #[arg(long)]
        key: String,
    },
}

/// Where keys and values come from.
#[derive(clap::Args)]
pub struct Data {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// FILE, KEY=FILE, or a directory
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let why = if error.kind() == std::io::ErrorKind::NotFound {
            "no such file or directory".to_owned()
        } else {
            error.to_string()
        };
        anyhow::anyhow!("error reading {}: {why}", path.display())
    })
}

impl Data {
    /// `of` names the object in messages.
    fn read(&self, of: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        for source in &self.from_file {
            files(source, &mut all)?;
        }
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .with_context(|| format!("invalid literal source {literal}, expected key=value"))?;
            all.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        for file in &self.from_env_file {
            let text = String::from_utf8(read_file(Path::new(file))?)
                .with_context(|| format!("{file} is not text"))?;
            for line in text.lines().map(str::trim_start) {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                // A name without a value takes the environment's value.
                let (key, value) = match line.split_once('=') {
                    Some((key, value)) => (key, value.to_owned()),
                    None => (line, std::env::var(line).unwrap_or_default()),
                };
                all.push((key.to_owned(), value.into_bytes()));
            }
        }
        for (index, (key, _)) in all.iter().enumerate() {
            if all[..index].iter().any(|(other, _)| other == key) {
                bail!(
                    "cannot add key {key:?}, another key by that name already exists in Data for {of}"
                );
            }
        }
        Ok(all)
    }
}

/// `FILE`, `KEY=FILE`, or every file of a directory.
fn files(source: &str, all: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let base = |path: &Path| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (key, file) = match source.split_once('=') {
        Some((key, file)) => (Some(key), Path::new(file)),
        None => (None, Path::new(source)),
    };
    if key.is_none() && file.is_dir() {
        for entry in std::fs::read_dir(file)? {
            let path = entry?.path();
            if path.is_file() {
                all.push((base(&path), read_file(&path)?));
            }
        }
        return Ok(());
    }
    all.push((key.map_or_else(|| base(file), str::to_owned), read_file(file)?));
    Ok(())
}

impl ConfigMap {
    pub fn object(&self) -> anyhow::Result<Value> {
        let (mut text, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.data.read(&format!("ConfigMap {:?}", self.name))? {
            match String::from_utf8(bytes) {
                Ok(value) => text.insert(key, value.into()),
                Err(error) => binary.insert(key, BASE64.encode(error.as_bytes()).into()),
            };
        }
        let mut object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&self.name)});
        for (field, map) in [("data", text), ("binaryData", binary)] {
            if !map.is_empty() {
                object[field] = map.into();
            }
        }
        if self.immutable {
            object["immutable"] = true.into();
        }
        Ok(object)
    }
}

fn secret(name: &str, kind: &str, data: Vec<(String, Vec<u8>)>) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name)});
    if !kind.is_empty() {
        object["type"] = kind.into();
    }
    if !data.is_empty() {
        let data: Map<String, Value> =
            data.into_iter().map(|(key, bytes)| (key, BASE64.encode(bytes).into())).collect();
        object["data"] = data.into();
    }
    object
}

impl Secret {
    pub fn object(&self) -> anyhow::Result<Value> {
        Ok(match self {
            Self::Generic { name, data, kind } => {
                secret(name, kind, data.read(&format!("Secret {name:?}"))?)
            }
            Self::DockerRegistry {
                name,
                docker_server,
                docker_username,
                docker_password,
                docker_email,
                from_file,
            } => {
                const KEY: &str = ".dockerconfigjson";
                let mut data = Vec::new();
                for source in from_file {
                    files(source, &mut data)?;
                }
                for (key, _) in &mut data {
                    KEY.clone_into(key);
                }
                if data.is_empty() {
                    if docker_username.is_empty() || docker_password.is_empty() {
                        bail!(
                            "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required"
                        );
                    }
                    let login = (docker_username.as_str(), docker_password.as_str());
                    let config = docker_config(docker_server, login, docker_email);
                    data.push((KEY.to_owned(), config.into_bytes()));
                }
                secret(name, "kubernetes.io/dockerconfigjson", data)
            }
            Self::Tls { name, cert, key } => {
                let read = |path: &String| {
                    std::fs::read(path).map_err(|_| {
                        anyhow::anyhow!(
                            "Cannot read file {path}, open {path}: no such file or directory"
                        )
                    })
                };
                let data =
                    vec![("tls.crt".to_owned(), read(cert)?), ("tls.key".to_owned(), read(key)?)];
                secret(name, "kubernetes.io/tls", data)
            }
        })
    }
}

/// The text of `.dockerconfigjson`, fields in docker's order.
fn docker_config(server: &str, (user, password): (&str, &str), email: &str) -> String {
    let text = |value: &str| Value::from(value).to_string();
    let email =
        if email.is_empty() { String::new() } else { format!("\"email\":{},", text(email)) };
    format!(
        "{{\"auths\":{{{}:{{\"username\":{},\"password\":{},{email}\"auth\":{}}}}}}}",
        text(server),
        text(user),
        text(password),
        text(&BASE64.encode(format!("{user}:{password}"))),
    )
}
