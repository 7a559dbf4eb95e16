//! What speaks against a failover: asked before each, and looked for by day, when somebody has the time to put it right.

use std::collections::BTreeMap;
use std::sync::Arc;

use failover_core::addr::Addr;
use failover_core::view::GroupView;
use tokio::time::{Instant, timeout_at};

use super::super::FailoverPlan;
use super::{Xcodis, answer, tree};

/// Every server of a product: its group, and whether it is called the master of that.
type Known = BTreeMap<Addr, (i64, bool)>;

impl Xcodis {
    /// Asks whether the old master stands in xcodis. A sentence says why not.
    ///
    /// # Errors
    /// A sentence that says why that is not known.
    pub(in super::super) async fn ask(
        &self,
        plan: &FailoverPlan,
        deadline: Instant,
    ) -> Result<Option<String>, String> {
        let asked = timeout_at(deadline, self.objection(&plan.old_master)).await;
        asked.map_err(|_| "ZooKeeper did not answer in time".to_owned())?
    }

    async fn objection(&self, master: &Addr) -> Result<Option<String>, String> {
        let client = self.link.client().await?;
        if self.group_of(&client, master).await?.is_some() {
            return Ok(None);
        }
        // This server of the ensemble may be behind the others; after this it is not.
        answer(client.sync(&self.paths.base)).await?;
        if self.group_of(&client, master).await?.is_some() {
            return Ok(None);
        }
        let is_there = answer(client.check_stat(&self.paths.servers())).await?.is_some();
        Ok(Some(self.unknown(master, is_there)))
    }

    /// What is wrong with these groups, a sentence each; `None` while ZooKeeper does not answer.
    pub(in super::super) async fn objections(
        &self,
        groups: &[Arc<GroupView>],
    ) -> Option<Vec<String>> {
        let (known, is_there) = self.known().await.ok()?;
        let objection = |group: &Arc<GroupView>| {
            let (name, master) = (&group.name, &group.master);
            let Some((id, is_master)) = known.get(master) else {
                let why = self.unknown(master, is_there);
                return Some(format!("a failover of {name} would be vetoed: {why}"));
            };
            // It changed while nobody looked after it, or without us.
            (!is_master).then(|| {
                format!(
                    "{master} is the master of {name}, but not of group {id} of xcodis: its proxies write elsewhere until \
                     somebody runs xcodis-config server promote {id} {master}"
                )
            })
        };
        Some(groups.iter().filter_map(objection).collect())
    }

    /// Every server of the product, and whether there is that product.
    async fn known(&self) -> Result<(Known, bool), String> {
        let client = self.link.client().await?;
        answer(client.sync(&self.paths.base)).await?;
        let is_there = answer(client.check_stat(&self.paths.servers())).await?.is_some();
        let mut known = BTreeMap::new();
        for id in self.group_ids(&client).await? {
            for (node, (server, _)) in self.read(&client, id).await?.servers {
                if let Ok(addr) = node.parse() {
                    known.insert(addr, (id, server.kind == tree::MASTER));
                }
            }
        }
        Ok((known, is_there))
    }

    fn unknown(&self, master: &Addr, is_there: bool) -> String {
        let servers = self.paths.servers();
        if is_there {
            format!(
                "{master} is in no group of xcodis ({servers}), so that its proxies could not be told of another master: \
                 add it there, written just so, or leave this group out of groups in [xcodis]"
            )
        } else {
            format!(
                "xcodis has no product \"{}\" ({servers} is not there in its ZooKeeper), so that its proxies could not be \
                 told of another master: look at product and zk_path in [xcodis], or leave this group out of its groups",
                self.product
            )
        }
    }
}
