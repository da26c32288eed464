//! The user of a container: `runAsUser` and the image's USER, with names looked up in the image's
//! own `/etc/passwd` and `/etc/group`.

use crate::containers::container::{ContainerUser, SecurityContext};
use crate::containers::error::{Result, RuntimeError};

/// The text of the image's account files; empty where they are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::containers) struct Accounts {
    pub(in crate::containers) passwd: String,
    pub(in crate::containers) group: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some(PasswdEntry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups()
            .filter(move |(_, _, members)| members.split(',').any(|name| name.trim() == user))
            .map(|(_, gid, _)| gid)
    }
}

/// Resolves the user. `image_user` is the image's USER: `name`, `uid`, `name:group`, `uid:gid`, or
/// empty.
pub(in crate::containers) fn resolve_user(
    security: &SecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<ContainerUser> {
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let (uid, entry) = match security.run_as_user {
        Some(uid) => (uid, accounts.users().find(|user| user.uid == uid)),
        None => find_user(image_name, accounts)?,
    };
    let gid = match (security.run_as_group, security.run_as_user, image_group) {
        (Some(gid), _, _) => gid,
        (None, None, group) if !group.is_empty() => find_group(group, accounts)?,
        _ => entry.as_ref().map_or(0, |user| user.gid),
    };
    let mut additional: Vec<u32> = vec![gid];
    if let (Some(entry), false) = (&entry, security.strict_supplemental_groups) {
        additional.extend(accounts.groups_of(entry.name));
    }
    additional.extend(&security.supplemental_groups);
    additional.sort_unstable();
    additional.dedup();
    Ok(ContainerUser { uid, gid, additional_gids: additional })
}

fn find_user<'a>(name: &str, accounts: &'a Accounts) -> Result<(u32, Option<PasswdEntry<'a>>)> {
    if name.is_empty() {
        return Ok((0, accounts.users().find(|user| user.uid == 0)));
    }
    if let Some(entry) = accounts.users().find(|user| user.name == name) {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = name.parse::<u32>().map_err(|_| RuntimeError::InvalidConfig {
        message: format!("unable to find user {name}: no matching entries in passwd file"),
    })?;
    Ok((uid, accounts.users().find(|user| user.uid == uid)))
}

fn find_group(name: &str, accounts: &Accounts) -> Result<u32> {
    if let Some((_, gid, _)) = accounts.groups().find(|(known, _, _)| *known == name) {
        return Ok(gid);
    }
    name.parse().map_err(|_| RuntimeError::InvalidConfig {
        message: format!("unable to find group {name}: no matching entries in group file"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:\n# broken\n".to_string(),
            group: "root:x:0:\nweb:x:102:\nlog:x:7:web,root\n".to_string(),
        }
    }

    fn resolve(security: &SecurityContext, image_user: &str) -> (u32, u32, Vec<u32>) {
        let user = resolve_user(security, image_user, &accounts()).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn table() {
        let none = SecurityContext::default();
        assert_eq!(resolve(&none, ""), (0, 0, vec![0, 7]));
        assert_eq!(resolve(&none, "web"), (101, 102, vec![7, 102]));
        assert_eq!(resolve(&none, "101"), (101, 102, vec![7, 102]));
        assert_eq!(resolve(&none, "web:log"), (101, 7, vec![7]));
        assert_eq!(resolve(&none, "5000:5001"), (5000, 5001, vec![5001]));
        let by_id = SecurityContext {
            run_as_user: Some(101),
            supplemental_groups: vec![9],
            strict_supplemental_groups: true,
            ..Default::default()
        };
        assert_eq!(resolve(&by_id, "root:log"), (101, 102, vec![9, 102]));
        let group =
            SecurityContext { run_as_user: Some(4), run_as_group: Some(3), ..Default::default() };
        assert_eq!(resolve(&group, ""), (4, 3, vec![3]));
    }

    #[test]
    fn unknown_names_are_errors() {
        let none = SecurityContext::default();
        assert!(resolve_user(&none, "nobody", &accounts()).is_err());
        assert!(resolve_user(&none, "web:nothing", &accounts()).is_err());
    }
}
