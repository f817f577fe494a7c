use actix_web::HttpResponse;
pub(super) async fn start() -> HttpResponse {
    HttpResponse::Ok().finish()
}
pub(super) async fn sign_in() -> HttpResponse {
    HttpResponse::Ok().finish()
}
pub(super) async fn callback() -> HttpResponse {
    HttpResponse::Ok().finish()
}
