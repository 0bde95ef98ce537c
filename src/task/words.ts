// English words for letter-count: common ones of five to twelve letters, many with repeated letters.

const LIST = `
ability absence academy account achieve acorn address advance adventure affair afternoon agency airport alarm album
alley almond alphabet although amazing ancient anger animal annual answer antenna apple appetite apricot arrange arrow
article artist assembly assess attempt attitude autumn avenue avocado baggage balance balloon bamboo banana bandage
barrel basket battery beaver bedroom beetle beginning believe beneath berry between bicycle biscuit blanket blossom
bottle bottom bracelet breeze bridge broccoli brother bubble bucket budget buffalo builder bulletin butter butterfly
button cabbage cabinet calendar camera canary candle cannon capital caravan career careless caribou carpet carriage
carrot castle ceiling cellar century ceremony channel character cheese cherry chicken chimney chocolate cinnamon
circle circus citizen classic climate cobbler coconut coffee collar college colour comedy comment committee common
community company compass concert connect cookie copper corner correct cottage cotton council country courage cousin
cricket crystal cucumber culture cupboard curious current curtain cushion custom dagger dancer danger daughter decade
december decide deliver dessert detail dialogue diamond different difficult dinner dinosaur discuss distance doctor
dollar dolphin donkey double dragon drawer dream drummer duckling eagle earring easter economy effect effort eighteen
elbow elephant eleven embassy emerald emperor endless energy engine evening evidence example excellent exchange express
fabric factory failure family famous farmer fashion feather february fellow fiddle fifteen finger finish flannel
flavour follow football forest forget forgotten fortune forward fossil freedom friend frozen funnel funny future
galaxy gallery garage garden garlic gateway gazelle general gentle giggle ginger giraffe glacier goggles gooseberry
gorilla grammar granite grapefruit grasshopper gravity green guitar hammer hamster handle happen happiness harbour
harmony harvest hazelnut headline health heaven hedgehog helicopter hidden history holiday hollow honey horizon
hospital hundred hunger husband iceberg illness imagine immense improve indeed infant insect instead interest iris
island jacket january jasmine jelly jewel journal journey juggle jungle kangaroo kettle keyboard kitchen kitten
knowledge ladder lantern laughter lavender leather lecture legend lemonade leopard lesson letter lettuce library
lightning little lizard lobster luggage lullaby machine magazine magnet mammal mango marble margin market marriage
meadow measure medicine melody member memory message middle million minute mirror mississippi mixture moment monday
monkey monster morning mosquito motion mountain mouse muffin muscle museum mushroom mustard mystery napkin narrow
nation natural necessary necklace needle neighbour nephew nettle nineteen noodle normal notebook nothing november
number nutmeg occasion ocean october office onion opinion opposite orange orchard orchestra ordinary origin otter
oyster package paddle painter palace pancake panda panel papaya parade parallel parcel parrot passage passenger
pasture patience pattern peacock peanut pebble pencil penguin pepper perfect piano pickle picture pigeon pillow
pineapple planet plastic platform pocket poetry pollen popcorn poppy possess potato powder present pretty prince
problem process profess promise pudding pumpkin puppet purple puzzle pyramid quarrel quarter question rabbit raccoon
radio railway rainbow raspberry rattle reason recess record referee regret reindeer remember reptile rescue respect
restaurant ribbon riddle river robber rocket rooster rubber rudder runner saddle sailor salad salmon sandwich
satellite saturday sausage scarlet scissors season second secret seller sentence september settle seventeen shadow
shallow shelter shepherd sheriff shoulder shower shutter silence silver simple sister sixteen skeleton slipper
smooth snowball soccer soldier sorrow spaghetti sparrow special spider spinach spirit spoon spring squirrel stadium
station statue stocking stomach storm strawberry street structure student success sudden suggest summer sunday
sunflower supper support surface surprise swallow sweater symbol system table tablet tailor talent tangerine tattoo
teacher teeth teddy telescope temple tennis terrace terrible theatre thirteen thousand thunder thursday ticket
timber tobacco toffee tomato tomorrow tongue tooth torrent towel traffic trailer treasure triangle trouble trumpet
tuesday tunnel turkey turtle twelve twenty umbrella uncle under unless until upper usual valley vanilla velvet
village vinegar violin visitor volcano volleyball voyage waffle wagon walnut warrior waterfall weather wedding
wednesday weekend whistle willow window winner winter wisdom wizard wonder wooden woodpecker worker worry yellow
yesterday yoghurt zebra zipper
`;

export const WORDS: readonly string[] = LIST.trim().split(/\s+/);
