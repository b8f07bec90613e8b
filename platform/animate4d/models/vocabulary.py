"""Words the word table knows from the start: our procedural captions and what artists name their animation clips.

A trained model carries its own copy (`words.json`), so this list may grow without touching saved weights.
"""

from __future__ import annotations

STOP_WORDS = frozenset(
    "a an the and or of in on at to its it is are be with as from by for that this their his her".split()  # noqa: SIM905
)
"""Left out of captions before they are cut to the table's slots."""

VERBS = """
bounce bend sway spin shake stretch open close wave walk flap slither crawl run gallop trot jump hop leap fly swim
float glide hover idle stand breathe attack bite punch kick slash stab shoot throw cast headbutt charge hit react
receive recieve die death fall collapse eat drink dance nod look turn roll twist swing rock tilt lean pulse wobble
squash hover drive ride climb duck crouch sit sleep land pick pickup interact wave point clap talk yes no hello
thumbs idle activate deactivate press pull push lift rise sink nod wiggle curl flip somersault shiver tremble stomp
march sneak dodge block guard survey rotate scale grow shrink rest pose move play wag
""".split()  # noqa: SIM905

ADVERBS = """
gently wildly slowly quickly fast slow softly strongly left right up down forward backward back out off high low
""".split()  # noqa: SIM905

ADJECTIVES = """
red green blue yellow orange purple pink cyan white black grey gray brown teal magenta golden silver striped
checkered checked spotted plain big small large tall short long old young dead heavy light shaded potted wooden
""".split()  # noqa: SIM905

NOUNS = """
walker dog bird tree snake box chest crate worm flower lamp spider robot fish person man woman figure creature
animal cat horse cow deer donkey wolf fox husky alpaca dragon dinosaur shark dolphin whale frog rat mouse bee bat
insect crab octopus turtle penguin duck chicken character enemy astronaut mech knight soldier zombie skeleton
monster ghost tank truck car ship boat plane rocket crane lever door gate windmill fan wheel pendulum plant grass
bush cactus tower building house sword gun weapon skull trap bouncer head arm leg wing tail lid water impulse place
spike tentacle jellyfish starfish butterfly hand claw tripod table chair book scissors
barrel vase bottle pot mushroom pile axe hammer shovel stool candle snowman bell toy sculpture thing doll
beetle potion torch bag log column stairs furniture bamboo katana
""".split()  # noqa: SIM905

WORDS = tuple(dict.fromkeys((*VERBS, *ADVERBS, *ADJECTIVES, *NOUNS)))
"""Every known word once, in a fixed order."""
