//! Whether an order's terms are those that its container is leased under.

use welkin_proto::lease::{ARGS_MAX, Launch, RefusalCode};
use welkin_proto::{ContainerOffer, Order, SpotTerms};
use welkin_types::{CapacityType, Price};

/// The longest path of a checkpoint, in bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// Checks the kind of the lease, its price and notice, and the form of its checkpoint. A price that
/// is too low was good when it was offered: the next candidate may be better.
pub(crate) fn check(
    order: &Order,
    launch: &Launch,
    container: &ContainerOffer,
) -> Result<(), (RefusalCode, String)> {
    let busy = |text: String| Err((RefusalCode::Busy, text));
    let invalid = |text: &str| Err((RefusalCode::Invalid, text.to_owned()));
    let terms = launch.terms;
    let price = match terms.capacity {
        CapacityType::OnDemand => container.price,
        CapacityType::Spot => {
            let Some(spot) = container.spot else {
                return busy("this host leases nothing as spot now".to_owned());
            };
            if terms.notice_seconds > spot.notice_seconds {
                return busy(format!("the notice is {} s now", spot.notice_seconds));
            }
            if terms.notice_seconds < *SpotTerms::NOTICE_SECONDS.start() {
                return invalid("a spot order names the notice that it was offered");
            }
            spot.price
        }
        CapacityType::Reserved if order.price != Price::default() => {
            return invalid("a lease on a reservation costs nothing beside it: its price is zero");
        }
        CapacityType::Reserved => order.price,
    };
    if terms.reservation.is_some() != (terms.capacity == CapacityType::Reserved) {
        return invalid("a lease of type reserved names its reservation, and no other does");
    }
    if order.price < price {
        return busy(format!("the price is {price} now"));
    }
    if let Some(checkpoint) = &launch.checkpoint {
        let path = checkpoint.path.as_str();
        let is_path = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        let is_bounded = path.len() <= PATH_BYTES_MAX && !path.contains('\0');
        if !(path.is_empty() || is_path && is_bounded) {
            return invalid("the checkpoint's path is not an absolute path without `..`");
        }
        if checkpoint.argv.len() > ARGS_MAX {
            return invalid("the checkpoint's command has too many arguments");
        }
        if checkpoint.argv.first().is_some_and(String::is_empty)
            || checkpoint.argv.iter().any(|argument| argument.contains('\0'))
        {
            return invalid("the checkpoint's command is empty or has a NUL character");
        }
    }
    Ok(())
}
