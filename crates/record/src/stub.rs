#![allow(missing_docs, dead_code, unused, reason="stub")]
pub mod schema { 
  use keepwell_model::{json::Value, outcome::Issue, types::ResourceType};
  #[derive(Clone, Copy, PartialEq, Eq)] pub enum Mode { Create, Update, Validate }
  pub fn validate(v:&Value<'_>, m: Mode)->Vec<Issue>{vec![]}
  pub fn element_of(t: ResourceType, n:&str)->String{n.into()}
  pub fn is_mandatory(t: ResourceType, n:&str)->bool{false}
  pub fn is_summary(t: ResourceType, n:&str)->bool{false}
}
pub mod patch { use keepwell_model::json::Value; pub fn apply(v:&mut Value<'static>, o:&Value<'_>)->Result<(),String>{Ok(())} }
pub mod parse { use keepwell_search::query::*; use keepwell_model::{types::ResourceType, outcome::Issue, time::Timestamp};
 pub struct Options<'a>{ pub lenient: bool, pub now: Timestamp, pub base_url:&'a str, pub terminology:&'a super::Hl7}
 pub fn parse(t: ResourceType, p:&[(String,String)], o:&Options<'_>)->Result<Query, Vec<Issue>>{Err(vec![])} }
#[derive(Default)] pub struct Hl7;
pub trait LedgerMore { fn check_proof(&self, seq:u64)->bool; fn event_of_row(&self, rid:u64)->Result<keepwell_ledger::Access, keepwell_ledger::ReadError>; }
impl LedgerMore for keepwell_ledger::Ledger<crate::Records> { fn check_proof(&self, seq:u64)->bool { self.proof(seq).is_ok() } fn event_of_row(&self, rid:u64)->Result<keepwell_ledger::Access, keepwell_ledger::ReadError>{ Err(keepwell_ledger::ReadError::Missing(rid)) } }
