//! The reservations in an account's folder.
//!
//! Each is one file, written by whoever pays for it. That a person ended it stands in a file of its own
//! beside it, so that the two never write the same.

use std::fs;
use std::io;
use std::path::PathBuf;

use welkin_proto::ReservationReceiptFile;
use welkin_types::ReservationId;

use super::home::{Home, HomeError, read_json, write_json};
use super::reservation::KeptReservation;

/// Reservations that are remembered; beyond it the oldest ended ones are forgotten. Receipts stay.
const RESERVATIONS_MAX: usize = 10_000;

impl Home {
    fn reservation_path(&self, id: ReservationId) -> PathBuf {
        self.dir().join("reservations").join(format!("{id}.json"))
    }

    fn cancelled_path(&self, id: ReservationId) -> PathBuf {
        self.dir().join("reservations").join(format!("{id}.cancelled"))
    }

    /// Where the receipt of a reservation is.
    pub fn reservation_receipt_path(&self, id: ReservationId) -> PathBuf {
        self.dir().join("receipts").join(format!("{id}.json"))
    }

    /// Writes a reservation down.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save_reservation(&self, kept: &KeptReservation) -> Result<(), HomeError> {
        write_json(&self.reservation_path(kept.reservation), kept)
    }

    /// One reservation.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn reservation(&self, id: ReservationId) -> Result<Option<KeptReservation>, HomeError> {
        read_json(&self.reservation_path(id))
    }

    /// All reservations, the newest first. Damaged files are left out and returned beside.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`] if the folder can't be read.
    pub fn reservations(&self) -> Result<(Vec<KeptReservation>, Vec<HomeError>), HomeError> {
        let folder = self.dir().join("reservations");
        let io = |source| HomeError::Io { what: "read", path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(io(error)),
        };
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match read_json::<KeptReservation>(&path) {
                    Ok(kept) => found.extend(kept),
                    Err(error) => damaged.push(error),
                }
            }
        }
        let newest = |kept: &KeptReservation| std::cmp::Reverse(kept.order.message.issued);
        found.sort_by_key(|kept| (newest(kept), kept.reservation));
        Ok((found, damaged))
    }

    /// Forgets a reservation that was never made, or is over.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub(super) fn remove_reservation(&self, id: ReservationId) -> Result<(), HomeError> {
        for path in [self.cancelled_path(id), self.reservation_path(id)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(HomeError::Io { what: "remove", path, source });
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// Forgets the oldest reservations that are over where there are too many.
    pub(super) fn prune_reservations(&self) -> Result<(), HomeError> {
        let (known, _) = self.reservations()?;
        let old = known.iter().skip(RESERVATIONS_MAX);
        for kept in old.filter(|kept| self.is_reservation_settled(kept)) {
            self.remove_reservation(kept.reservation)?;
        }
        Ok(())
    }

    /// Writes down that a person has ended a reservation.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn cancel_reservation(&self, id: ReservationId) -> Result<(), HomeError> {
        write_json(&self.cancelled_path(id), &true)
    }

    /// Whether a person has ended it.
    pub fn is_cancelled(&self, id: ReservationId) -> bool {
        self.cancelled_path(id).exists()
    }

    /// Writes the receipt of a reservation down.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save_reservation_receipt(
        &self,
        id: ReservationId,
        receipt: &ReservationReceiptFile,
    ) -> Result<(), HomeError> {
        write_json(&self.reservation_receipt_path(id), receipt)
    }

    /// The receipt of a reservation, if there is one.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn reservation_receipt(
        &self,
        id: ReservationId,
    ) -> Result<Option<ReservationReceiptFile>, HomeError> {
        read_json(&self.reservation_receipt_path(id))
    }

    /// Whether nothing of it is left to be done: the receipt is here, or it was given up.
    pub fn is_reservation_settled(&self, kept: &KeptReservation) -> bool {
        kept.given_up || self.reservation_receipt_path(kept.reservation).exists()
    }
}
