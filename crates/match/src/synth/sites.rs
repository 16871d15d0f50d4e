//! Where synthetic containers and buyers are: cities of 95 countries.

/// A city.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Country and city, as a region is called.
    pub name: &'static str,
    /// Tenths of a degree to the north.
    pub latitude: i32,
    /// Tenths of a degree to the east.
    pub longitude: i32,
    /// Its share of the demand.
    pub demand: u32,
    /// Its share of the supply.
    pub supply: u32,
}

const fn site(name: &'static str, place: (i32, i32), demand: u32, supply: u32) -> Site {
    Site { name, latitude: place.0, longitude: place.1, demand, supply }
}

/// All cities.
pub const SITES: [Site; 113] = [
    site("kr-seoul", (376, 1270), 40, 50),
    site("jp-tokyo", (357, 1397), 40, 50),
    site("jp-osaka", (347, 1355), 20, 20),
    site("cn-shanghai", (312, 1215), 30, 30),
    site("hk-hong-kong", (223, 1142), 30, 50),
    site("tw-taipei", (250, 1215), 20, 30),
    site("sg-singapore", (14, 1038), 30, 60),
    site("my-kuala-lumpur", (31, 1017), 20, 20),
    site("th-bangkok", (138, 1005), 30, 20),
    site("vn-hanoi", (210, 1058), 20, 15),
    site("vn-ho-chi-minh", (108, 1067), 30, 15),
    site("ph-manila", (146, 1210), 40, 20),
    site("id-jakarta", (-62, 1068), 60, 30),
    site("kh-phnom-penh", (116, 1049), 5, 4),
    site("mm-yangon", (168, 962), 5, 3),
    site("bd-dhaka", (238, 904), 30, 6),
    site("in-mumbai", (191, 729), 60, 20),
    site("in-bengaluru", (130, 776), 40, 15),
    site("in-delhi", (286, 772), 50, 12),
    site("in-chennai", (131, 803), 30, 10),
    site("pk-karachi", (249, 670), 30, 5),
    site("lk-colombo", (69, 799), 6, 3),
    site("np-kathmandu", (277, 853), 5, 2),
    site("uz-tashkent", (413, 692), 6, 4),
    site("kz-almaty", (432, 769), 6, 6),
    site("mn-ulaanbaatar", (479, 1069), 2, 2),
    site("ae-dubai", (252, 553), 15, 15),
    site("sa-riyadh", (247, 467), 15, 8),
    site("il-tel-aviv", (321, 348), 8, 8),
    site("tr-istanbul", (410, 290), 30, 10),
    site("ir-tehran", (357, 514), 10, 3),
    site("az-baku", (404, 499), 3, 2),
    site("ge-tbilisi", (417, 448), 2, 2),
    site("eg-cairo", (300, 312), 30, 6),
    site("dz-algiers", (368, 31), 10, 2),
    site("ma-casablanca", (336, -76), 10, 3),
    site("ng-lagos", (65, 34), 30, 4),
    site("gh-accra", (56, -2), 6, 2),
    site("ke-nairobi", (-13, 368), 12, 4),
    site("za-johannesburg", (-262, 280), 20, 15),
    site("za-cape-town", (-339, 184), 10, 6),
    site("cd-kinshasa", (-43, 153), 5, 1),
    site("sn-dakar", (147, -174), 4, 1),
    site("gb-london", (515, -1), 40, 50),
    site("fr-paris", (489, 24), 40, 40),
    site("de-frankfurt", (501, 87), 40, 70),
    site("nl-amsterdam", (524, 49), 20, 50),
    site("be-brussels", (508, 44), 10, 10),
    site("ie-dublin", (533, -63), 10, 25),
    site("es-madrid", (404, -37), 25, 15),
    site("pt-lisbon", (387, -91), 10, 6),
    site("it-milan", (455, 92), 25, 15),
    site("it-rome", (419, 125), 15, 5),
    site("ch-zurich", (474, 85), 10, 20),
    site("at-vienna", (482, 164), 10, 12),
    site("cz-prague", (501, 144), 10, 12),
    site("pl-warsaw", (522, 210), 25, 20),
    site("hu-budapest", (475, 190), 8, 6),
    site("ro-bucharest", (444, 261), 12, 12),
    site("bg-sofia", (427, 233), 7, 12),
    site("gr-athens", (380, 237), 8, 4),
    site("rs-belgrade", (448, 205), 6, 4),
    site("hr-zagreb", (458, 160), 4, 3),
    site("se-stockholm", (593, 181), 12, 25),
    site("no-oslo", (599, 108), 7, 20),
    site("dk-copenhagen", (557, 126), 7, 10),
    site("fi-helsinki", (602, 249), 8, 30),
    site("is-reykjavik", (641, -219), 1, 15),
    site("lt-vilnius", (547, 253), 4, 6),
    site("lv-riga", (569, 241), 3, 5),
    site("ee-tallinn", (594, 248), 3, 4),
    site("ua-kyiv", (505, 305), 15, 8),
    site("ru-moscow", (558, 376), 30, 10),
    site("us-new-york", (407, -740), 50, 60),
    site("us-ashburn", (389, -775), 30, 90),
    site("us-chicago", (419, -876), 30, 40),
    site("us-dallas", (328, -968), 30, 60),
    site("us-los-angeles", (341, -1182), 40, 50),
    site("us-bay-area", (374, -1220), 30, 40),
    site("us-oregon", (456, -1212), 10, 40),
    site("us-seattle", (476, -1223), 15, 20),
    site("us-atlanta", (337, -844), 20, 30),
    site("us-miami", (258, -802), 20, 20),
    site("us-utah", (408, -1119), 8, 20),
    site("ca-toronto", (437, -794), 20, 25),
    site("ca-montreal", (455, -736), 15, 40),
    site("mx-mexico-city", (194, -991), 40, 10),
    site("cr-san-jose", (99, -841), 3, 2),
    site("co-bogota", (47, -741), 20, 6),
    site("pe-lima", (-120, -770), 15, 4),
    site("br-sao-paulo", (-235, -466), 50, 20),
    site("ar-buenos-aires", (-346, -584), 20, 7),
    site("cl-santiago", (-334, -707), 12, 8),
    site("ve-caracas", (105, -669), 6, 1),
    site("au-sydney", (-339, 1512), 20, 20),
    site("nz-auckland", (-368, 1748), 5, 4),
    site("ec-quito", (-2, -785), 6, 2),
    site("uy-montevideo", (-349, -562), 3, 3),
    site("py-asuncion", (-253, -576), 2, 3),
    site("pa-panama", (90, -795), 3, 3),
    site("do-santo-domingo", (185, -699), 4, 1),
    site("tn-tunis", (368, 102), 4, 1),
    site("qa-doha", (253, 515), 3, 4),
    site("kw-kuwait", (294, 480), 3, 2),
    site("jo-amman", (319, 359), 4, 1),
    site("lu-luxembourg", (496, 61), 1, 6),
    site("sk-bratislava", (481, 171), 4, 4),
    site("si-ljubljana", (461, 145), 2, 3),
    site("cy-nicosia", (352, 334), 1, 2),
    site("mt-valletta", (359, 145), 1, 1),
    site("md-chisinau", (470, 289), 2, 3),
    site("am-yerevan", (402, 445), 2, 3),
    site("et-addis-ababa", (90, 387), 8, 1),
];

/// Cosines of whole degrees from 0 to 90, in thousandths.
const COSINES: [i64; 91] = [
    1000, 1000, 999, 999, 998, 996, 995, 993, 990, 988, 985, 982, 978, 974, 970, 966, 961, 956,
    951, 946, 940, 934, 927, 921, 914, 906, 899, 891, 883, 875, 866, 857, 848, 839, 829, 819, 809,
    799, 788, 777, 766, 755, 743, 731, 719, 707, 695, 682, 669, 656, 643, 629, 616, 602, 588, 574,
    559, 545, 530, 515, 500, 485, 469, 454, 438, 423, 407, 391, 375, 358, 342, 326, 309, 292, 276,
    259, 242, 225, 208, 191, 174, 156, 139, 122, 105, 87, 70, 52, 35, 17, 0,
];

/// Kilometres between two places, near enough for a synthetic world, in integers so that every
/// machine agrees.
pub(super) fn distance_km((a, b): (i32, i32), (c, d): (i32, i32)) -> u64 {
    let north = i64::from(a - c);
    let east = i64::from(b - d).rem_euclid(3_600);
    let middle = usize::try_from((i64::from(a + c) / 20).abs()).unwrap_or(90).min(90);
    let east = east.min(3_600 - east) * COSINES[middle] / 1_000;
    // A tenth of a degree is 11.1 km.
    let square = (north * north + east * east).unsigned_abs();
    (square * 12_321).isqrt() / 10
}
