"""DreamOn as it is published, at a tiny size."""

from dataclasses import replace

from .published import END, MASK, TABLE

EXPAND, BEGIN = 258, 260
DREAMON = replace(
    next(one for one in TABLE if one.name == "dream"),
    name="dreamon",
    generation={
        "mask_token_id": MASK,
        "eos_token_id": END,
        "expand_token_id": EXPAND,
        "delete_token_id": END,
    },
    specials=("<|begin|>",),
    never=(EXPAND,),
)
