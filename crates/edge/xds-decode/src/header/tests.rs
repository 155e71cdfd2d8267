use super::*;

fn option(key: &str, value: &str) -> pb::core::HeaderValueOption {
    pb::core::HeaderValueOption {
        header: Some(pb::core::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        ..Default::default()
    }
}

fn request(
    add: Vec<pb::core::HeaderValueOption>,
    remove: &[&str],
) -> Result<HeaderOperations, Refusal> {
    operations(
        &mut Cx::default(),
        Lists {
            request_add: add,
            request_remove: remove.iter().map(|s| (*s).to_owned()).collect(),
            response_add: Vec::new(),
            response_remove: Vec::new(),
        },
    )
}

#[test]
fn removals_come_before_additions() {
    let found = request(vec![option("x-a", "1%%")], &["x-b"])
        .expect("decoded")
        .request;
    assert!(matches!(&found[0], HeaderOperation::Remove(name) if name == "x-b"));
    assert!(
        matches!(&found[1], HeaderOperation::Set { value: HeaderValueFormat::Literal(v), mode: AppendMode::AppendOrAdd, .. } if v == "1%")
    );
}

#[test]
fn the_host_is_set_and_other_pseudo_headers_are_refused() {
    assert!(matches!(
        &request(vec![option("Host", "a")], &[])
            .expect("decoded")
            .request[0],
        HeaderOperation::SetHost(_)
    ));
    assert!(request(vec![option(":path", "/")], &[]).is_err());
    let refused = request(vec![], &["host"])
        .expect_err("refused")
        .into_reject("route table", "r");
    assert_eq!(refused.field, "request_headers_to_remove[0]");
}

#[test]
fn operators_make_a_format() {
    assert!(matches!(
        format(&Cx::default(), "%DOWNSTREAM_REMOTE_ADDRESS%").expect("a format"),
        HeaderValueFormat::Format(_)
    ));
    assert!(format(&Cx::default(), "%NO_SUCH_OPERATOR(").is_err());
}
