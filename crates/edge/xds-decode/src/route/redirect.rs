//! Redirects.

use http::StatusCode;
use proxy_config::route::{Redirect, RedirectPath, RedirectScheme};
use wire_envoy::pb::{
    self,
    route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
};

use crate::{
    judgement::enumerated,
    matcher,
    reject::{Refusal, Within},
    scalar,
};

pub(super) fn redirect(value: pb::route::RedirectAction) -> Result<Redirect, Refusal> {
    let pb::route::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = value;
    let status = match enumerated!(response_code => RedirectResponseCode, "response_code")? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    Ok(Redirect {
        host: scalar::text(host_redirect),
        port: (port_redirect != 0)
            .then(|| scalar::port("port_redirect", port_redirect))
            .transpose()?,
        scheme: match scheme_rewrite_specifier {
            None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => RedirectScheme::Keep,
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => RedirectScheme::Https,
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
                RedirectScheme::To(scheme.into())
            }
        },
        path: match path_rewrite_specifier {
            None => RedirectPath::Keep,
            Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
            Some(PathRewriteSpecifier::PathRedirect(path)) => RedirectPath::Replace(path.into()),
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                RedirectPath::Prefix(prefix.into())
            }
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
                RedirectPath::Regex(matcher::rewrite(regex).within("regex_rewrite")?)
            }
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                return Err(Refusal::at("path_rewrite", "formats are not supported"));
            }
        },
        status,
        strip_query,
    })
}
