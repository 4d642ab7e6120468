//! Who the client of a request is, as the plugins of its chain have found out.

use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// What one plugin of a chain has verified, for those behind it and for templates. Each part is set once a request.
#[derive(Default)]
pub struct Identity {
    user: OnceLock<String>,
    claims: OnceLock<Map<String, Value>>,
}

impl Identity {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self { user: OnceLock::new(), claims: OnceLock::new() }
    }

    /// Notes the name under which the client has proven itself. The first plugin to do so is believed.
    pub fn set_user(&self, user: String) {
        let _ = self.user.set(user);
    }

    /// The name under which the client has proven itself.
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    /// Notes the claims of a token that was verified. The first plugin to do so is believed.
    pub fn set_claims(&self, claims: Map<String, Value>) {
        let _ = self.claims.set(claims);
    }

    /// The claims of the token that was verified (RFC 7519 section 4).
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        self.claims.get()
    }
}

/// Claims may hold what is private, so they are not shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims = self.claims().map(Map::len);
        f.debug_struct("Identity").field("user", &self.user()).field("claims", &claims).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_first_stays_and_claims_are_not_shown() {
        let identity = Identity::new();
        assert_eq!((identity.user(), identity.claims()), (None, None));
        identity.set_user("alice".into());
        identity.set_user("mallory".into());
        let claims = |name: &str| Map::from_iter([("email".to_owned(), Value::from(name))]);
        identity.set_claims(claims("alice@a.test"));
        identity.set_claims(claims("mallory@a.test"));
        assert_eq!(identity.user(), Some("alice"));
        assert_eq!(identity.claims().unwrap()["email"], "alice@a.test");
        assert_eq!(format!("{identity:?}"), "Identity { user: Some(\"alice\"), claims: Some(1) }");
    }
}
