//! What `make demo` promises: bookinfo behind the ingress gateway, all three versions of the reviews over reloads.

use std::{collections::BTreeSet, time::Duration};

use acceptance::{Mesh, Proxy, User};
use testkit::eventually;

/// What each version of the reviews looks like on the page.
fn version_of(page: &str) -> Result<&'static str, String> {
    match (page.contains("color:black"), page.contains("color:red")) {
        _ if !page.contains("Book Reviews") => {
            Err(page.split("</style>").nth(1).unwrap_or(page).to_owned())
        }
        (true, false) => Ok("v2"),
        (false, true) => Ok("v3"),
        (false, false) => Ok("v1"),
        (true, true) => Err("two colours on one page".into()),
    }
}

fn all_versions_appear_on_the_page(proxy: Proxy, user: User) {
    let mesh = Mesh::builder()
        .proxy(proxy)
        .user(user)
        .sample("demo")
        .start();
    let url = format!(
        "http://{}/productpage",
        mesh.published("istio-system", "istio-ingressgateway", 80)
    );
    let first = eventually("the product page", Duration::from_secs(30), || {
        let answer = mesh.request_from_outside(&url, &[]);
        if answer.status == 200 && answer.body.contains("Simple Bookstore App") {
            Ok(answer.body)
        } else {
            Err(answer)
        }
    });
    let mut seen = BTreeSet::from_iter(version_of(&first));
    eventually(
        "all versions of the reviews",
        Duration::from_secs(30),
        || {
            let answer = mesh.request_from_outside(&url, &[]);
            assert_eq!(answer.status, 200, "a reload failed: {}", answer.body);
            seen.insert(
                version_of(&answer.body)
                    .unwrap_or_else(|page| panic!("no reviews on the page: {page}")),
            );
            if seen.len() == 3 {
                Ok(())
            } else {
                Err(seen.clone())
            }
        },
    );
    let log = mesh.up_log();
    assert!(
        log.contains(url.trim_end_matches("/productpage")),
        "the summary has no URL of the gateway: {log}"
    );
    assert_eq!(
        mesh.request_from_outside(&url.replace("/productpage", "/nothing"), &[])
            .status,
        404
    );
    mesh.assert_no_nack();
}

#[test]
fn bookinfo_with_our_proxy() {
    all_versions_appear_on_the_page(Proxy::Tanbark, User::Own);
}

#[test]
fn bookinfo_of_a_user_without_rights() {
    match acceptance::users().as_slice() {
        [_, without_rights] => all_versions_appear_on_the_page(Proxy::Tanbark, *without_rights),
        _ => testkit::left_out(
            "bookinfo of a user without rights",
            "whoever runs the tests is that user, and only root can be another",
        ),
    }
}

#[test]
fn bookinfo_with_envoy() {
    let user = acceptance::users().pop().unwrap_or(User::Own);
    all_versions_appear_on_the_page(Proxy::Envoy, user);
}
