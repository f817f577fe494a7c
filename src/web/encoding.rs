//! Which answers leave compressed: what is the same for everybody. Pages do not: each fits into the first packets of a
//! connection, so it would be there no sooner, and compressing one takes longer than making it. Nor do answers to apps, which
//! are little more than tokens. RFC 9110 §8.4, §12.5.3.

use actix_web::http::header::{
    AcceptEncoding, CONTENT_ENCODING, ContentEncoding, Encoding, HeaderValue, VARY,
};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use crate::compressed::Compressed;

/// Gives an answer the body that the request asks for.
pub(super) fn answer(
    request: &HttpRequest,
    answer: HttpResponse,
    document: &Compressed,
) -> HttpResponse {
    let is_wanted = takes_gzip(request);
    let body = if is_wanted {
        &document.gzip
    } else {
        &document.plain
    };
    let mut answer = answer.set_body(body.clone()).map_into_boxed_body();
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    if is_wanted {
        let gzip = HeaderValue::from_static(ContentEncoding::Gzip.as_str());
        headers.insert(CONTENT_ENCODING, gzip);
    }
    answer
}

/// Without the header everything may be sent, but nobody who leaves it out expects gzip. Whoever takes nothing at all gets
/// the document as it is.
fn takes_gzip(request: &HttpRequest) -> bool {
    let ours = [Encoding::gzip(), Encoding::identity()];
    let chosen = request
        .get_header::<AcceptEncoding>()
        .and_then(|accepted| accepted.negotiate(ours.iter()));
    chosen == Some(Encoding::gzip())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use actix_web::body::to_bytes;
    use actix_web::http::header::ACCEPT_ENCODING;
    use actix_web::test::TestRequest;
    use flate2::read::GzDecoder;

    use super::*;

    #[actix_web::test]
    async fn who_takes_gzip_gets_it_and_everybody_else_the_document_as_it_is() {
        let text = "the same for everybody ".repeat(50);
        let document = Compressed::new(text.clone());
        for (accepted, expected) in [
            (Some("gzip, deflate, br, zstd"), true),
            (Some("gzip"), true),
            (Some("br;q=1.0, gzip;q=0.5, *;q=0"), true),
            (Some("br"), false),
            (Some("gzip;q=0"), false),
            (Some("identity;q=0, *;q=0"), false),
            (Some("\u{e9};;,q=,"), false),
            (None, false),
        ] {
            let mut request = TestRequest::default();
            if let Some(accepted) = accepted {
                request = request.insert_header((ACCEPT_ENCODING, accepted));
            }
            let answer = answer(
                &request.to_http_request(),
                HttpResponse::Ok().finish(),
                &document,
            );
            let is_gzip = answer
                .headers()
                .get(CONTENT_ENCODING)
                .is_some_and(|encoding| encoding == "gzip");
            assert_eq!(is_gzip, expected, "{accepted:?}");
            assert_eq!(answer.headers().get(VARY).unwrap(), "accept-encoding");
            let body = to_bytes(answer.into_body()).await.unwrap();
            let mut read = String::new();
            if is_gzip {
                assert!(body.len() < text.len() / 5);
                GzDecoder::new(&body[..]).read_to_string(&mut read).unwrap();
            } else {
                read.push_str(std::str::from_utf8(&body).unwrap());
            }
            assert_eq!(read, text);
        }
    }
}
