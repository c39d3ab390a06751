//! `netplug watch`: have every flow ask the host again as soon as that may decide otherwise.

use super::watch::complain;
use crate::datapath::Datapath;
use crate::node::changes::Changes;

/// Does so until the process ends, beside what else it does: a look at uplinks may wait for an ADD, a changed rule may not.
pub fn answer() -> anyhow::Result<()> {
    // Here: what changes from now on is told.
    let mut changes = Changes::listen()?;
    std::thread::Builder::new().name("changes".into()).spawn(move || {
        let mut complaint = None;
        loop {
            if let Err(error) = changes.wait() {
                eprintln!("netplug: {:#}", anyhow::Error::from(error));
                std::process::exit(1);
            }
            let answered = bump();
            if answered.is_err() {
                changes.put_off();
            }
            complain(&mut complaint, answered.err());
        }
    })?;
    Ok(())
}

fn bump() -> anyhow::Result<()> {
    // Flows are followed, whatever pin is lost, or not there yet: by the programs of an older build.
    if let Some(datapath) = Datapath::open_what_is_left()? {
        datapath.bump_epoch()?;
    }
    Ok(())
}
