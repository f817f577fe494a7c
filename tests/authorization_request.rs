//! What an authorization request may say, and where its refusal goes. OpenID Connect Core §3.1.2; RFC 9700 §4.1, §4.11.
