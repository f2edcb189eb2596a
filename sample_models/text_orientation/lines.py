"""Lines of text as signs, receipts and labels have them, drawn with a seed. No line comes twice."""

import numpy as np

_WORDS = """
above account address adult after afternoon agent airport alley almond amount anchor apple
april area arrival aspirin august autumn avenue bakery balance ballet banana bank barley basil
basket battery beach bean bedroom bicycle birch blanket boiler book bottle branch bread
breakfast bridge broker brown bucket budget building butter button cabbage cabin cable camera
candle canteen carbon carpet carrot cash castle caution cedar cellar central century cereal
chain chair change channel chapel charge cheese cherry chicken cinema circle citizen city
client clinic closed coffee college concert copper corner cotton counter country county cream
credit crystal cupboard curtain customer cutlery daily danger december deliver dental deposit
dessert detail diesel dinner discount district doctor dollar double dozen drawer duplex early
east editor egg electric elevator email emergency empty engine entrance envelope evening event
exchange exit express fabric factory family farmer february ferry fiction filter finance fire
first flight floor flour flower folder forest fork fragile fresh friday fridge front fruit fuel
furniture gallery garage garden garlic gate general ginger glass gold grain grand granite grape
gravel green grocery ground guard guest guide hammer handle harbour hardware harvest hazel
health heater herbal highway history holiday honey hospital hotel house hunter ice import
indoor inside insurance invoice iron island ivory jacket january jewel journal juice july june
junction kettle keyboard kitchen kiwi ladder lady lake lamp landing laundry leather lemon lesson
letter lettuce library licence limited linen liquid lobby local lounge lower luggage lunch
machine mail main manager maple march margarine market master may meadow meal medical medium
melon member menu metal meter midnight mild milk mill minute mobile model monday monthly morning
motor mountain museum mushroom music mustard napkin narrow national natural nature needle night
north notice november nurse nylon oatmeal october office olive onion open orange orchard order
organic oven oxygen oyster packet paint palace panel paper parcel park parking pasta patient
payment peach pepper permit petrol pharmacy phone piano picture pillow pilot pine platform plaza
plum pocket police polish pond poplar pork portion postal potato powder premium press price
printer private product profit public pump purple quality quarter queen quick quiet radio
railway rain raisin receipt recipe record red refund regular rental repair rescue reserved
restaurant return rice river road rocket roof room rose round royal rubber safety salad salmon
salt sandwich saturday sauce scale school science scissors screen season seat second secure
september server service shampoo shelter ship shirt shop shower silver single sister size sleep
small smoke soap soda south spare special spice spinach spring square stairs stamp standard
staple station steel stone storage store straight street studio subtotal sugar summer sunday
supply surface surgery swim syrup table tariff taxi tea teacher telephone temple tennis terminal
textile theatre thursday ticket timber toast tobacco toilet tomato total tower track traffic
train transit travel treasure truck tuesday tunnel turkey union upper urban valley vanilla
vegetable vehicle velvet video village vinegar violet visitor vitamin voucher waiter walnut
warden warehouse warning washing water weather wednesday weekly west wheat white window winter
wire wood wool worker yard yellow yoghurt zebra zone
"""
WORDS = tuple(_WORDS.split())
"""Plain English words."""

KINDS = ("words", "words", "price", "address", "date", "code", "hours")
"""What a line may be; words twice as often as each of the others."""

MAX_CHARACTERS = 11
"""Longer lines are not drawn: the network squeezes what is wider than four times its height."""

CASES = (str.lower, str.capitalize, str.title, str.upper)


def draw_line(rng: np.random.Generator) -> str:
    """One line. Each holds a word, since "690" or "SOS" reads the same when it is turned."""
    first, second = (WORDS[i] for i in rng.choice(len(WORDS), 2, replace=False))
    number = int(rng.integers(1, 200))
    match KINDS[rng.integers(len(KINDS))]:
        case "price":
            text = f"{first} {number / 4:.2f}"
        case "address":
            text = f"{number} {first} {('road', 'street', 'lane')[number % 3]}"
        case "date":
            text = f"{first} {1 + number % 28}.{1 + number % 12}.{2000 + number % 30}"
        case "code":
            text = f"{first} {chr(65 + number % 26)}-{1000 + 47 * number}"
        case "hours":
            text = f"{first} {6 + number % 5}-{14 + number % 9} h"
        case _:
            text = first if number % 3 else f"{first} {second}"
    return CASES[rng.integers(len(CASES))](text)


def draw_lines(count: int, seed: int) -> tuple[str, ...]:
    """`count` lines that all differ, also where upper and lower case are taken as one."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        text = draw_line(rng)
        if len(text) <= MAX_CHARACTERS:
            found.setdefault(text.lower(), text)
    return tuple(found.values())
