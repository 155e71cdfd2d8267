//! Who is signed in: a cookie `session=USER`. There is no password, as in Istio's sample, so there is nothing to protect by a signature.
//!
//! A name must be able to stand in a header (`end-user`) and in a cookie: letters, digits and `._@-`, up to 64.

use http::HeaderMap;
use http::header::COOKIE;

/// Longest user name, characters.
const MAX_NAME: usize = 64;

/// Whether `name` can be a user's name.
pub fn acceptable(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

/// The user of the session cookie, if there is one and its name is acceptable.
pub fn user(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix("session="))
        .find(|name| acceptable(name))
}

/// Value of `set-cookie` that signs `name` in.
pub fn sign_in(name: &str) -> String {
    format!("session={name}; Path=/; HttpOnly; SameSite=Lax")
}

/// Value of `set-cookie` that signs out.
pub const SIGN_OUT: &str = "session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn user_is_read_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(
            COOKIE,
            HeaderValue::from_static("theme=dark; session=jason; x=y"),
        );
        assert_eq!(user(&headers), Some("jason"));
    }

    #[test]
    fn names_that_could_break_a_header_are_refused() {
        for name in ["", "a b", "a;b", "a\r\nb", "<b>", &"x".repeat(65)] {
            assert!(!acceptable(name), "{name:?}");
        }
        assert!(acceptable("jason") && acceptable("a.b-c_d@e"));
    }
}
