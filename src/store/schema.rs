//! One schema for both databases; a test compares it with what the migrations make.

diesel::table! {
    properties (name) {
        name -> Text,
        value -> Text,
    }
}

diesel::table! {
    users (id) {
        id -> Text,
        email -> Text,
        email_key -> Text,
        email_verified -> Bool,
        password_hash -> Nullable<Text>,
        admin -> Bool,
        disabled -> Bool,
        group_names -> Text,
        claims -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
        managed -> Bool,
    }
}

diesel::table! {
    clients (client_id) {
        client_id -> Text,
        metadata -> Text,
        disabled -> Bool,
        created_at -> BigInt,
        updated_at -> BigInt,
        managed -> Bool,
    }
}

diesel::table! {
    scopes (name) {
        name -> Text,
        description -> Nullable<Text>,
        claims -> Text,
        managed -> Bool,
    }
}

diesel::table! {
    groups (name) {
        name -> Text,
        description -> Nullable<Text>,
        managed -> Bool,
    }
}

diesel::table! {
    client_secrets (id) {
        id -> Text,
        client_id -> Text,
        secret_hash -> Binary,
        created_at -> BigInt,
        from_file -> Bool,
        prefix -> Text,
        last_used_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    client_origins (client_id, origin) {
        client_id -> Text,
        origin -> Text,
    }
}

diesel::table! {
    signing_keys (kid) {
        kid -> Text,
        algorithm -> Text,
        slot -> Nullable<Text>,
        public_jwk -> Text,
        private_key -> Binary,
        created_at -> BigInt,
        activated_at -> Nullable<BigInt>,
        retired_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    sessions (id) {
        id -> Text,
        token_hash -> Binary,
        user_id -> Text,
        auth_time -> BigInt,
        proved_for -> Nullable<Text>,
        acr -> Text,
        amr -> Text,
        remembered -> Bool,
        created_at -> BigInt,
        last_seen_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        prune_after -> BigInt,
    }
}

diesel::table! {
    consents (user_id, client_id) {
        user_id -> Text,
        client_id -> Text,
        scope -> Text,
        claims -> Text,
        given_at -> BigInt,
    }
}

diesel::table! {
    grants (id) {
        id -> Text,
        client_id -> Text,
        user_id -> Text,
        session_id -> Text,
        scope -> Text,
        claims -> Text,
        resources -> Text,
        auth_time -> BigInt,
        acr -> Text,
        amr -> Text,
        offline -> Bool,
        created_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
        prune_after -> BigInt,
    }
}

diesel::table! {
    authorization_codes (code_hash) {
        code_hash -> Binary,
        grant_id -> Text,
        redirect_uri -> Text,
        code_challenge -> Nullable<Text>,
        nonce -> Nullable<Text>,
        expires_at -> BigInt,
        consumed_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    access_tokens (token_hash) {
        token_hash -> Binary,
        grant_id -> Text,
        scope -> Text,
        expires_at -> BigInt,
        for_issuer -> Bool,
        resources -> Text,
        issued_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    client_assertions (assertion_hash) {
        assertion_hash -> Binary,
        expires_at -> BigInt,
    }
}

diesel::table! {
    client_tokens (token_hash) {
        token_hash -> Binary,
        client_id -> Text,
        scope -> Text,
        resources -> Text,
        issued_at -> BigInt,
        expires_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    refresh_tokens (token_hash) {
        token_hash -> Binary,
        grant_id -> Text,
        issued_at -> BigInt,
        expires_at -> BigInt,
        redeemed_at -> Nullable<BigInt>,
        redeemed_from -> Nullable<Binary>,
        retried_elsewhere -> Bool,
        elsewhere_before -> BigInt,
    }
}

diesel::table! {
    throttles (bucket) {
        bucket -> Binary,
        failures -> BigInt,
        earlier_failures -> BigInt,
        window_started_at -> BigInt,
    }
}

diesel::table! {
    audit_events (id) {
        id -> Text,
        time -> BigInt,
        event -> Text,
        actor -> Nullable<Text>,
        target -> Nullable<Text>,
        client_id -> Nullable<Text>,
        address -> Nullable<Text>,
        request_id -> Nullable<Text>,
        detail -> Text,
        seal -> Nullable<BigInt>,
    }
}

diesel::table! {
    audit_seals (number) {
        number -> BigInt,
        newest -> BigInt,
        events -> BigInt,
        digest -> Binary,
        previous -> Binary,
        mac -> Binary,
    }
}

diesel::joinable!(authorization_codes -> grants (grant_id));
diesel::joinable!(access_tokens -> grants (grant_id));
diesel::joinable!(client_tokens -> clients (client_id));
diesel::joinable!(refresh_tokens -> grants (grant_id));
diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(grants -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(
    properties,
    users,
    clients,
    scopes,
    groups,
    client_secrets,
    client_origins,
    signing_keys,
    sessions,
    consents,
    grants,
    authorization_codes,
    access_tokens,
    client_assertions,
    client_tokens,
    refresh_tokens,
    throttles,
    audit_events,
    audit_seals
);
