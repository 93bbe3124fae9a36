"""Facts: capitals, learned by heart and asked in the same words."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed

CAPITALS = {
    "Albania": "Tirana", "Angola": "Luanda", "Austria": "Vienna", "Belgium": "Brussels",
    "Bolivia": "Sucre", "Brazil": "Brasilia", "Bulgaria": "Sofia", "Canada": "Ottawa",
    "Chile": "Santiago", "China": "Beijing", "Croatia": "Zagreb", "Cuba": "Havana",
    "Denmark": "Copenhagen", "Ecuador": "Quito", "Egypt": "Cairo", "Estonia": "Tallinn",
    "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin", "Ghana": "Accra",
    "Greece": "Athens", "Hungary": "Budapest", "India": "Delhi", "Iran": "Tehran",
    "Iraq": "Baghdad", "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo",
    "Jordan": "Amman", "Kenya": "Nairobi", "Latvia": "Riga", "Lebanon": "Beirut",
    "Libya": "Tripoli", "Mali": "Bamako", "Malta": "Valletta", "Morocco": "Rabat",
    "Nepal": "Kathmandu", "Norway": "Oslo", "Oman": "Muscat", "Peru": "Lima",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Qatar": "Doha", "Romania": "Bucharest",
    "Senegal": "Dakar", "Serbia": "Belgrade", "Spain": "Madrid", "Sudan": "Khartoum",
    "Sweden": "Stockholm", "Syria": "Damascus", "Thailand": "Bangkok", "Tunisia": "Tunis",
    "Turkey": "Ankara", "Uganda": "Kampala", "Ukraine": "Kyiv", "Vietnam": "Hanoi",
}  # fmt: skip


class Facts(Task):
    """`capital of France? ` gives `[Paris]`."""

    name = "facts"
    title = "facts"
    held_out = False

    def make(self, rng: Random) -> Item:
        country = rng.choice(sorted(CAPITALS))
        return boxed(f"capital of {country}? ", CAPITALS[country])
