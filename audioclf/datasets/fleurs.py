"""FLEURS: spoken language, 102 classes, some 12 hours each, at 16 kHz, with official parts.

Source: Conneau, Ma, Khanuja, Zhang, Axelrod, Dalmia, Riesa, Rivera & Bapna (2022), "FLEURS: Few-shot Learning
Evaluation of Universal Representations of Speech". All languages read the same sentences, and each sentence is read by
several speakers; who speaks is not told, so there are no groups. The speakers of train are others than those of dev
and test.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from ..errors import DatasetError
from . import archive, hub
from .base import SPLIT_NAMES, AudioSplits, Example
from .corpus import choose_labels, find_corpus, present
from .folder import audio_files, subfolders
from .making import make_splits

HUB_ID = "google/fleurs"
PARTS = ("train", "dev", "test")
MAX_UNPACKED_BYTES = 16 * 2**30
LANGUAGES = """
    af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk
    de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu
    hy_am id_id ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd
    lo_la lt_lt luo_ke lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr
    om_et or_in pa_in pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in
    tg_tj th_th tr_tr uk_ua umb_ao ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
""".split()  # noqa: SIM905 (a hundred quoted codes would be a page)


def load(root: str | Path | None, labels: Sequence[str] | None, cache_dir: str | Path) -> AudioSplits:
    """FLEURS from a folder laid out as on the hub, or from the hub.

    Args:
        root: The folder with the languages' folders, called `data` on the hub (or one above it); None to fetch them.
            In a language's folder are `train.tsv`, `dev.tsv` and `test.tsv`, and in its `audio` a folder or a tar.gz
            for each.
        labels: The languages wanted, in the order of their ids; all that are there, sorted, when not given. To be
            fetched they must be given, as all 102 are some 350 GB.
        cache_dir: Where archives are unpacked.

    Raises:
        DatasetError: when it cannot be found, fetched or read.
    """
    if root is None:
        if labels is None:
            raise DatasetError(
                "All 102 languages of FLEURS are some 350 GB: name those to fetch, such as labels=['en_us', 'fr_fr'], "
                "or give a copy's folder as root."
            )
        folders = {language: _fetch(language) for language in choose_labels("fleurs", labels, LANGUAGES)}
    else:
        folder = find_corpus(
            root,
            title="FLEURS",
            holds=lambda folder: any((below / "train.tsv").is_file() for below in subfolders(folder)),
            lacks="there is no language's folder such as en_us with train.tsv in it",
        )
        known = [below.name for below in subfolders(folder) if (below / "train.tsv").is_file()]
        folders = {language: folder / language for language in choose_labels("fleurs", labels, known)}
    clips, notes = [], []
    for language, folder in folders.items():
        for part in PARTS:
            there, missing = _clips(folder, language, part, Path(cache_dir) / "fleurs")
            clips, notes = clips + there, notes + missing
    return make_splits(clips, name="fleurs", labels=labels or list(folders), notes=notes)


def _fetch(language: str) -> Path:
    """The folder of a language, fetched once."""
    from huggingface_hub import hf_hub_download

    with hub.fetching(f"The language {language} of FLEURS (3 GB)", "If you have a copy, give its folder as root."):
        for part in PARTS:
            for name in (f"data/{language}/audio/{part}.tar.gz", f"data/{language}/{part}.tsv"):
                path = hf_hub_download(HUB_ID, name, repo_type="dataset")
    return Path(path).parent


def _clips(folder: Path, language: str, part: str, unpack_into: Path) -> tuple[list[Example], list[str]]:
    """The clips of a part that its table lists and that are there, and a note if some are not."""
    table = folder / f"{part}.tsv"
    audio = _audio_folder(folder, part, unpack_into)
    paths = {path.name: str(path) for path in audio_files(audio)}
    clips = [
        Example(paths.get(name, str(audio / name)), label=language, split=SPLIT_NAMES[part]) for name in _listed(table)
    ]
    return present(clips, [language], repr(str(table)))


def _audio_folder(folder: Path, part: str, unpack_into: Path) -> Path:
    unpacked, packed = folder / "audio" / part, folder / "audio" / f"{part}.tar.gz"
    if unpacked.is_dir():
        return unpacked
    if not packed.is_file():
        raise DatasetError(f"{str(folder)!r} is no whole language of FLEURS: audio/{part}.tar.gz is missing.")
    return archive.unpack(packed, unpack_into, MAX_UNPACKED_BYTES)


def _listed(table: Path) -> list[str]:
    """The file names of a table; its rows are id, file, and five more, among them text in which quotes stand alone."""
    if not table.is_file():
        raise DatasetError(f"{str(table)!r} is missing, which lists the clips; fetch it again.")
    names = []
    with open(table, encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            if len(row) < 2 or not row[1].endswith(".wav"):
                raise DatasetError(f"{str(table)!r}, line {number}: its second cell must be the name of a wav file.")
            names.append(row[1])
    return list(dict.fromkeys(names))
