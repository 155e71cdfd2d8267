//! The two HTML pages, as pure functions of what the services said. Everything that came from elsewhere is escaped; there are no scripts
//! and no assets from outside. The title and the words of the error boxes are those of Istio's page, because scripts look for them.

use std::fmt::Write;

use serde_json::Value;

use crate::productpage::{Part, Product};

const STYLE: &str = include_str!("page.css");
const MAX_STARS: i64 = 5;

/// The front door: where the services are, and links to the product page.
pub fn index(details: &str, reviews: &str, ratings: &str) -> String {
    let mut rows = String::new();
    for (name, base, calls) in [
        ("details", details, "–"),
        ("reviews", reviews, "ratings"),
        ("ratings", ratings, "–"),
    ] {
        let _ = write!(
            rows,
            "<tr><th>{name}</th><td><code>{}</code></td><td>{calls}</td></tr>",
            escape(base)
        );
    }
    frame(
        None,
        &format!(
            "<section class=\"hero\"><p class=\"kicker\">Bookinfo on Tanbark</p><h1>A bookstore in four services</h1>\
             <p>The product page asks three services for what it shows. One of them, reviews, runs in three versions: no stars, black stars, red stars.</p>\
             <p><a class=\"button\" href=\"/productpage?u=normal\">Normal user</a> <a class=\"button quiet\" href=\"/productpage?u=test\">Test user</a></p></section>\
             <section class=\"card\"><h2>Services</h2><table><tr><th>service</th><td>address</td><td>calls</td></tr>{rows}</table></section>"
        ),
    )
}

/// The product page. Parts that failed are boxes with the error in them.
pub fn product(product: &Product, details: &Part, reviews: &Part, user: Option<&str>) -> String {
    let details = if details.status.is_success() {
        facts(&details.body)
    } else {
        sorry("details", &details.body)
    };
    let reviews = if reviews.status.is_success() {
        opinions(&reviews.body)
    } else {
        sorry("reviews", &reviews.body)
    };
    // The description is our own text, with mark-up in it.
    let Product {
        id: _,
        title,
        description_html,
    } = product;
    frame(
        user,
        &format!(
            "<section class=\"hero\"><div class=\"cover\" aria-hidden=\"true\"><span>The<br>Comedy<br>of<br>Errors</span></div>\
             <div><p class=\"kicker\">Book</p><h1>{title}</h1><p>{description_html}</p></div></section>\
             <div class=\"columns\"><section class=\"card\" id=\"details\">{details}</section><section class=\"card\" id=\"reviews\">{reviews}</section></div>"
        ),
    )
}

fn frame(user: Option<&str>, content: &str) -> String {
    let account = match user {
        Some(user) => format!("<span class=\"user\">{}</span><a class=\"button quiet\" href=\"/logout\">Sign out</a>", escape(user)),
        None => "<form action=\"/login\" method=\"post\"><input name=\"username\" placeholder=\"User name\" aria-label=\"User name\" \
                 maxlength=\"64\" required><input type=\"hidden\" name=\"passwd\" value=\"\"><button class=\"button\">Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Simple Bookstore App</title>\n<style>{STYLE}</style></head>\n<body><header><a class=\"brand\" href=\"/productpage\">Bookinfo</a>\
         <nav>{account}</nav></header>\n<main>{content}</main>\n<footer>Istio's bookinfo, served by a Tanbark mesh</footer></body>\n</html>\n"
    )
}

fn facts(details: &Value) -> String {
    let mut rows = String::new();
    for (label, field) in [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("Author", "author"),
        ("Year", "year"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ] {
        let _ = write!(
            rows,
            "<tr><th>{label}</th><td>{}</td></tr>",
            escape(&text(details.get(field)))
        );
    }
    format!("<h2>Book Details</h2><table>{rows}</table>")
}

fn opinions(reviews: &Value) -> String {
    let mut out = String::from("<h2>Book Reviews</h2>");
    for review in reviews
        .get("reviews")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let _ = write!(
            out,
            "<figure><blockquote>{}</blockquote><figcaption>{}{}</figcaption></figure>",
            escape(&text(review.get("text"))),
            escape(&text(review.get("reviewer"))),
            review.get("rating").map(stars).unwrap_or_default()
        );
    }
    let _ = write!(
        out,
        "<p class=\"served\">Reviews served by: <code>{}</code>",
        escape(&text(reviews.get("podname")))
    );
    match reviews.get("clustername").and_then(Value::as_str) {
        None | Some("null") => {}
        Some(cluster) => {
            let _ = write!(out, " on cluster <code>{}</code>", escape(cluster));
        }
    }
    out + "</p>"
}

fn stars(rating: &Value) -> String {
    let Some(stars) = rating.get("stars").and_then(Value::as_i64) else {
        return "<span class=\"problem\">Ratings service is currently unavailable</span>"
            .to_owned();
    };
    let stars = stars.clamp(0, MAX_STARS);
    // A colour is a word; anything else would be style of somebody else's making.
    let color = rating
        .get("color")
        .and_then(Value::as_str)
        .filter(|color| color.bytes().all(|byte| byte.is_ascii_alphabetic()))
        .unwrap_or("black");
    let mut out = format!(
        "<span class=\"stars {color}\" style=\"color:{color}\" role=\"img\" aria-label=\"{stars} of {MAX_STARS} stars, {color}\">"
    );
    for star in 0..MAX_STARS {
        out.push_str(if star < stars { "★" } else { "☆" });
    }
    out + "</span>"
}

fn sorry(what: &str, body: &Value) -> String {
    format!(
        "<div class=\"error\"><h2>Error fetching product {what}!</h2><p>{}</p></div>",
        escape(&text(body.get("error")))
    )
}

/// Text of a JSON value without quotes; a dash where it is missing.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::productpage::PRODUCT;
    use http::StatusCode;
    use serde_json::json;

    fn part(body: Value) -> Part {
        Part {
            status: StatusCode::OK,
            body,
        }
    }

    #[test]
    fn stars_take_the_colour_of_the_version() {
        let reviews = json!({"podname": "reviews-v3-x", "reviews": [{"reviewer": "R", "text": "t", "rating": {"stars": 4, "color": "red"}}]});
        let html = product(&PRODUCT, &part(json!({})), &part(reviews), None);
        assert!(
            html.contains("class=\"stars red\"") && html.contains("★★★★☆"),
            "{html}"
        );
        assert!(html.contains("reviews-v3-x"));
    }

    #[test]
    fn version_one_shows_no_stars() {
        let reviews = json!({"podname": "p", "reviews": [{"reviewer": "R", "text": "t"}]});
        let html = product(&PRODUCT, &part(json!({})), &part(reviews), None);
        assert!(
            !html.contains('★') && !html.contains("Ratings service"),
            "{html}"
        );
    }

    #[test]
    fn failed_parts_are_error_boxes() {
        let failed = Part {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: json!({"error": "Sorry"}),
        };
        let html = product(&PRODUCT, &failed, &failed, None);
        assert!(
            html.contains("Error fetching product details!")
                && html.contains("Error fetching product reviews!")
        );
    }

    #[test]
    fn foreign_text_is_escaped() {
        let reviews = json!({"podname": "<script>", "reviews": [{"text": "<b>", "rating": {"stars": 9, "color": "red\"><script>"}}]});
        let html = product(
            &PRODUCT,
            &part(json!({"type": "<i>"})),
            &part(reviews),
            Some("<u>"),
        );
        for evil in ["<script>", "<b>&", "<i>", "<u>"] {
            assert!(!html.contains(evil), "{evil} in {html}");
        }
    }
}
