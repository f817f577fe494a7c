//! Whatever token a client holds up: which one of ours is it? For introspection and revocation; the client's hint would only
//! say where to look first (RFC 7009 §2.1).

use crate::protocol::access_token::IssuedAccessToken;
use crate::protocol::grants::Grant;
use crate::protocol::grants::client_credentials::ClientToken;
use crate::protocol::grants::refresh_token::{self, IssuedRefreshToken};
use crate::protocol::seal::TokenHash;
use crate::store::{access_tokens, client_tokens, refresh_tokens};
use crate::web::error::Fault;
use crate::web::state::AppState;

/// A token of ours, live or not.
pub(super) enum IssuedToken {
    Access(IssuedAccessToken, Box<Grant>),
    Refresh(IssuedRefreshToken),
    OfClient { token: ClientToken, revoked: bool },
}

/// Looks a token up as a whole: one character more or less is another token.
pub(super) async fn find(state: &AppState, token: &str) -> Result<Option<IssuedToken>, Fault> {
    let hash = TokenHash::of(token);
    let successor = TokenHash::of(&refresh_token::successor(&state.root, token));
    let found = state
        .store
        .read(move |conn| {
            if let Some((token, grant)) = access_tokens::find(conn, &hash)? {
                return Ok(Some(IssuedToken::Access(token, Box::new(grant))));
            }
            if let Some((token, revoked)) = client_tokens::find(conn, &hash)? {
                return Ok(Some(IssuedToken::OfClient { token, revoked }));
            }
            let token = refresh_tokens::find(conn, &hash, &successor)?;
            Ok(token.map(IssuedToken::Refresh))
        })
        .await?;
    Ok(found.or_else(|| {
        // A client's own JWT is written down only when it is revoked; its signature says that it is ours.
        let claims = state.keys.load().verify_access_token(token)?;
        let token = ClientToken::from_claims(&claims, state.issuer())?;
        Some(IssuedToken::OfClient {
            token,
            revoked: false,
        })
    }))
}
