//! The hardware of a synthetic fleet: forty kinds of GPU with their prices and shares.

/// What a kind of GPU is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Phones and small boards.
    Edge,
    /// Gaming cards.
    Consumer,
    /// Workstation and inference cards.
    Workstation,
    /// Training cards.
    Datacenter,
}

/// A kind of GPU.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// What it is made for.
    pub made_for: Use,
    /// Memory in GB.
    pub vram_gb: u16,
    /// The middle of its prices: micro-dollars an hour.
    pub price: u32,
    /// Its share of the fleet.
    pub share: u32,
    /// How demanding the games are that it runs, from 0 for none to 5.
    pub gaming: u8,
    /// Whether hosts have several.
    pub is_multiple: bool,
}

const fn model(
    (name, made_for): (&'static str, Use),
    (vram_gb, price, share): (u16, u32, u32),
    gaming: u8,
    is_multiple: bool,
) -> Model {
    Model { name, made_for, vram_gb, price, share, gaming, is_multiple }
}

/// All kinds.
pub const MODELS: [Model; 40] = [
    model(("snapdragon-865", Use::Edge), (12, 30000, 180), 0, false),
    model(("snapdragon-8g2", Use::Edge), (12, 50000, 40), 0, false),
    model(("rk3588", Use::Edge), (16, 30000, 40), 0, false),
    model(("gtx1660", Use::Consumer), (6, 50000, 40), 1, false),
    model(("rtx2060", Use::Consumer), (6, 60000, 30), 1, false),
    model(("rtx2070", Use::Consumer), (8, 70000, 25), 2, false),
    model(("rtx2080", Use::Consumer), (8, 80000, 20), 2, false),
    model(("rtx3060", Use::Consumer), (12, 80000, 70), 2, false),
    model(("rtx3070", Use::Consumer), (8, 100000, 50), 3, false),
    model(("rtx3080", Use::Consumer), (10, 130000, 40), 3, false),
    model(("rtx3090", Use::Consumer), (24, 200000, 35), 4, false),
    model(("rtx4060", Use::Consumer), (8, 100000, 40), 2, false),
    model(("rtx4070", Use::Consumer), (12, 150000, 40), 3, false),
    model(("rtx4080", Use::Consumer), (16, 220000, 20), 4, false),
    model(("rtx4090", Use::Consumer), (24, 360000, 40), 5, true),
    model(("rtx5070", Use::Consumer), (12, 180000, 20), 4, false),
    model(("rtx5080", Use::Consumer), (16, 280000, 15), 5, false),
    model(("rtx5090", Use::Consumer), (32, 550000, 20), 5, true),
    model(("rx6800", Use::Consumer), (16, 120000, 10), 3, false),
    model(("rx7900", Use::Consumer), (24, 200000, 10), 4, false),
    model(("t4", Use::Workstation), (16, 150000, 30), 1, true),
    model(("a2000", Use::Workstation), (12, 120000, 10), 2, true),
    model(("a4000", Use::Workstation), (16, 180000, 10), 3, true),
    model(("a5000", Use::Workstation), (24, 260000, 10), 3, true),
    model(("a6000", Use::Workstation), (48, 480000, 12), 4, true),
    model(("a10", Use::Workstation), (24, 350000, 20), 3, true),
    model(("a16", Use::Workstation), (16, 220000, 20), 1, true),
    model(("l4", Use::Workstation), (24, 400000, 20), 3, true),
    model(("l40", Use::Workstation), (48, 700000, 8), 4, true),
    model(("l40s", Use::Workstation), (48, 850000, 15), 4, true),
    model(("rtx6000ada", Use::Workstation), (48, 750000, 6), 4, true),
    model(("rtxpro6000", Use::Workstation), (96, 1300000, 5), 5, true),
    model(("v100", Use::Datacenter), (32, 300000, 5), 0, true),
    model(("a100-40", Use::Datacenter), (40, 800000, 5), 0, true),
    model(("a100-80", Use::Datacenter), (80, 1100000, 8), 0, true),
    model(("h100", Use::Datacenter), (80, 2100000, 16), 0, true),
    model(("h200", Use::Datacenter), (141, 2800000, 6), 0, true),
    model(("b200", Use::Datacenter), (192, 4500000, 2), 0, true),
    model(("mi300x", Use::Datacenter), (192, 2200000, 2), 0, true),
    model(("gh200", Use::Datacenter), (96, 2300000, 1), 0, true),
];
