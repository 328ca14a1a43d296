from .attack_table import EXPERTS as EXPERTS
from .attack_table import REPORTED as REPORTED
from .closed_form import fit as fit
from .conversion import convert as convert
from .correction import NetworkOptions as NetworkOptions
from .correction import train_correction as train_correction
from .examples import FitOptions as FitOptions
from .fit_report import held_out_report as held_out_report
