//! Static files under addresses that contain their own hash, so that a browser asks for each version once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::encoding;
use crate::compressed::Compressed;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Static;

/// Where a file under `static/` is served, without the issuer's own path: `/static/1f0c22ab/css/latchkey.css`.
pub(super) fn url(path: &str) -> String {
    static URLS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        Static::iter()
            .filter_map(|path| Some((path.to_string(), address(&path)?)))
            .collect()
    });
    // While developing, a saved file has a new hash and the next page must name it.
    let url = if cfg!(debug_assertions) {
        address(path)
    } else {
        URLS.get(path).cloned()
    };
    url.unwrap_or_else(|| unreachable!("no static file {path}"))
}

/// Answers `/static/{hash}/{path:.*}`; an address of another version is unknown, as its bytes are gone.
pub(super) async fn serve(
    request: HttpRequest,
    address: web::Path<(String, String)>,
) -> HttpResponse {
    let (hash, path) = address.into_inner();
    let Some(file) = Static::get(&path).filter(|file| short_hash(file) == hash) else {
        return HttpResponse::NotFound().finish();
    };
    // Weak, because the same file also leaves compressed.
    let tag = format!("W/\"{hash}\"");
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
    if unchanged {
        return keepable(HttpResponse::NotModified(), tag).finish();
    }
    whole(Some(&request), file, &path, tag)
}

/// The file at an address, where there is no request that may know it already.
pub(super) fn at(own_path: &str) -> Option<HttpResponse> {
    let (hash, path) = own_path.strip_prefix("/static/")?.split_once('/')?;
    let file = Static::get(path).filter(|file| short_hash(file) == hash)?;
    Some(whole(None, file, path, format!("W/\"{hash}\"")))
}

fn whole(
    request: Option<&HttpRequest>,
    file: EmbeddedFile,
    path: &str,
    tag: String,
) -> HttpResponse {
    let answer = keepable(HttpResponse::Ok(), tag)
        .insert_header((header::CONTENT_TYPE, content_type(path)))
        .finish();
    let document = document(path, file);
    match request {
        Some(request) => encoding::answer(request, answer, &document),
        None => answer.set_body(document.plain).map_into_boxed_body(),
    }
}

fn document(path: &str, file: EmbeddedFile) -> Compressed {
    static DOCUMENTS: LazyLock<HashMap<String, Compressed>> = LazyLock::new(|| {
        Static::iter()
            .filter_map(|path| {
                let document = Compressed::new(Static::get(&path)?.data.into_owned());
                Some((path.to_string(), document))
            })
            .collect()
    });
    // While developing, a saved file is another one.
    let kept = (!cfg!(debug_assertions)).then(|| DOCUMENTS.get(path).cloned());
    kept.flatten()
        .unwrap_or_else(|| Compressed::new(file.data.into_owned()))
}

fn keepable(mut answer: HttpResponseBuilder, tag: String) -> HttpResponseBuilder {
    answer
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((header::ETAG, tag))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    answer
}

fn address(path: &str) -> Option<String> {
    Static::get(path).map(|file| format!("/static/{}/{path}", short_hash(&file)))
}

fn short_hash(file: &EmbeddedFile) -> String {
    file.metadata
        .sha256_hash()
        .iter()
        .take(4)
        .fold(String::with_capacity(8), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes every write");
            hex
        })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;

    use super::*;

    #[actix_web::test]
    async fn the_address_of_a_file_serves_it_for_a_year() {
        let answer = answer_to(&url("css/latchkey.css"), None).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            answer.headers().get(header::CACHE_CONTROL).unwrap(),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(
            answer.headers().get(header::CONTENT_TYPE).unwrap(),
            "text/css; charset=utf-8"
        );
        assert_eq!(
            answer
                .headers()
                .get(header::X_CONTENT_TYPE_OPTIONS)
                .unwrap(),
            "nosniff"
        );
    }

    #[actix_web::test]
    async fn a_browser_that_has_the_file_gets_no_body() {
        let url = url("img/favicon.svg");
        let tag = answer_to(&url, None)
            .await
            .headers()
            .get(header::ETAG)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            answer_to(&url, Some(&tag)).await.status(),
            StatusCode::NOT_MODIFIED
        );
    }

    #[actix_web::test]
    async fn another_hash_or_another_file_is_unknown() {
        for url in [
            "/static/00000000/css/latchkey.css",
            "/static/00000000/../Cargo.toml",
            "/static/00000000/css",
        ] {
            assert_eq!(
                answer_to(url, None).await.status(),
                StatusCode::NOT_FOUND,
                "{url}"
            );
        }
    }

    #[test]
    fn the_stylesheet_stays_small() {
        let size = Static::get("css/latchkey.css").unwrap().data.len();
        assert!(size <= 9_000, "{size} bytes");
    }

    async fn answer_to(url: &str, known: Option<&str>) -> HttpResponse {
        let (hash, path) = url
            .strip_prefix("/static/")
            .unwrap()
            .split_once('/')
            .unwrap();
        let mut request = TestRequest::default();
        if let Some(tag) = known {
            request = request.insert_header((header::IF_NONE_MATCH, tag));
        }
        serve(
            request.to_http_request(),
            web::Path::from((hash.to_owned(), path.to_owned())),
        )
        .await
    }
}
