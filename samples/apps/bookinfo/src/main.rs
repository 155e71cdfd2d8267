//! Bookinfo, Istio's sample application, as one small program: `tanbark-bookinfo productpage|details|reviews|ratings`.
//!
//! Ports, paths, JSON shapes, forwarded headers and environment variables are those of Istio's four services, so that its YAML and
//! the tasks of its documentation run unmodified. The image map (`samples/images.yaml`) names a service for each image.
//! Only this file reads the environment. Not here: the databases behind version 2 of the ratings and the outside book service
//! behind version 2 of the details; asking for them ends the program with a message that says so.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use clap::{Args, Parser, Subcommand};

mod details;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod serve;
mod session;
mod upstream;

use upstream::{Upstream, UpstreamAddress};

/// Istio's bookinfo sample: the four services in one program.
#[derive(Parser)]
#[command(name = "tanbark-bookinfo", version)]
struct Command {
    #[command(subcommand)]
    service: Service,
    /// Address to listen on; port 0 lets the system choose one, which is then printed.
    #[arg(long, global = true, default_value = "0.0.0.0:9080")]
    listen: SocketAddr,
}

#[derive(Subcommand)]
enum Service {
    /// The page, and the API over the three other services.
    Productpage(Productpage),
    /// Facts about the book.
    Details(Details),
    /// Two reviews, with stars where ratings are enabled.
    Reviews(Reviews),
    /// Stars per reviewer.
    Ratings(Ratings),
}

#[derive(Args)]
struct Productpage {
    #[arg(long, env = "SERVICES_DOMAIN")]
    services_domain: Option<String>,
    #[arg(long, env = "DETAILS_HOSTNAME", default_value = "details")]
    details_hostname: String,
    #[arg(long, env = "DETAILS_SERVICE_PORT", default_value_t = 9080)]
    details_port: u16,
    #[arg(long, env = "REVIEWS_HOSTNAME", default_value = "reviews")]
    reviews_hostname: String,
    #[arg(long, env = "REVIEWS_SERVICE_PORT", default_value_t = 9080)]
    reviews_port: u16,
    #[arg(long, env = "RATINGS_HOSTNAME", default_value = "ratings")]
    ratings_hostname: String,
    #[arg(long, env = "RATINGS_SERVICE_PORT", default_value_t = 9080)]
    ratings_port: u16,
    /// Needless requests to reviews for each page, to show rate limits.
    #[arg(long, env = "FLOOD_FACTOR", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    flood_factor: u32,
    /// How long another service may take for one try, milliseconds.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
}

#[derive(Args)]
struct Details {
    #[arg(long, env = "ENABLE_EXTERNAL_BOOK_SERVICE", default_value = "false")]
    enable_external_book_service: String,
}

#[derive(Args)]
struct Reviews {
    #[arg(long, env = "SERVICES_DOMAIN")]
    services_domain: Option<String>,
    #[arg(long, env = "RATINGS_HOSTNAME", default_value = "ratings")]
    ratings_hostname: String,
    #[arg(long, env = "RATINGS_SERVICE_PORT", default_value_t = 9080)]
    ratings_port: u16,
    /// Whether the stars are asked for; anything but `true` is no, as in Istio's service.
    #[arg(long, env = "ENABLE_RATINGS", default_value = "false")]
    enable_ratings: String,
    #[arg(long, env = "STAR_COLOR", default_value = "black")]
    star_color: String,
    #[arg(long, env = "HOSTNAME")]
    pod_name: Option<String>,
    #[arg(long, env = "CLUSTER_NAME")]
    cluster_name: Option<String>,
}

#[derive(Args)]
struct Ratings {
    /// `v1`, or one of the faulty ones: `v-faulty`, `v-delayed`, `v-unavailable`, `v-unhealthy`.
    #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
    service_version: String,
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let (name, router) = router(command.service)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve::serve(name, command.listen, router))
}

fn router(service: Service) -> anyhow::Result<(&'static str, Router)> {
    match service {
        Service::Productpage(flags) => {
            let address = |host: &str, port| {
                UpstreamAddress::new(host, flags.services_domain.as_deref(), port)
            };
            let timeout = Duration::from_millis(flags.timeout_ms);
            let settings = productpage::Settings {
                details: Upstream::new(
                    address(&flags.details_hostname, flags.details_port),
                    timeout,
                ),
                reviews: Upstream::new(
                    address(&flags.reviews_hostname, flags.reviews_port),
                    timeout,
                ),
                ratings: Upstream::new(
                    address(&flags.ratings_hostname, flags.ratings_port),
                    timeout,
                ),
                flood_factor: flags.flood_factor,
            };
            Ok(("productpage", productpage::router(settings)))
        }
        Service::Details(flags) => {
            if flags.enable_external_book_service == "true" {
                bail!(
                    "ENABLE_EXTERNAL_BOOK_SERVICE=true (version 2 of the details) is not supported: it needs a service on the internet"
                );
            }
            Ok(("details", details::router()))
        }
        Service::Reviews(flags) => {
            let ratings = UpstreamAddress::new(
                &flags.ratings_hostname,
                flags.services_domain.as_deref(),
                flags.ratings_port,
            );
            // Istio's service waits ten seconds for black stars and two and a half for red ones: its planted timeout bug.
            let timeout = Duration::from_millis(if flags.star_color == "black" {
                10_000
            } else {
                2_500
            });
            let settings = reviews::Settings {
                ratings: flags
                    .enable_ratings
                    .eq_ignore_ascii_case("true")
                    .then(|| Upstream::new(ratings, timeout)),
                star_color: flags.star_color,
                pod_name: flags.pod_name,
                cluster_name: flags.cluster_name,
            };
            Ok(("reviews", reviews::router(settings)))
        }
        Service::Ratings(flags) => {
            let mode = ratings::Mode::parse(&flags.service_version)
                .context("SERVICE_VERSION of ratings")?;
            Ok(("ratings", ratings::router(mode)))
        }
    }
}
