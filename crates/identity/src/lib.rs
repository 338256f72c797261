//! Who is asking: accounts, tokens, sessions, one-time sign-in links.
