"""Frequent short words and telling letters of languages that share a script with others. Lower case, composed (NFC)."""

FUNCTION_WORDS = {
    "en": """the of and to in is that it for on was with as be by at this have from or had not are but what all were we when
        your can said there use an each which she do how their if will up other about out many then them these so some her
        would make like him into has two more no could my than been who its now find did get come made may part you he they
        his me our us any let just because also only where after before very should must does i'm don't it's first wait thus
        here so since try guess think need know next step total using therefore hence still over why yes now gave
        gets got many much times less left number day days week hour hours minutes year years old per three four five ten cost
        costs money spent compute find evaluate simplify what's both during without again always never something""",
    "de": """der die das und ist nicht ein eine einen einem einer eines zu mit den dem des auf für von im sich auch es an werden
        aus er hat dass sie nach wird bei um am sind noch wie wir haben nur oder aber vor zur bis mehr durch man sein wurde
        sehr so zum war kann ich ihr diese dieser dieses wenn unter als über ihre mich dir mir uns kein keine doch schon also
        dann warum weil gibt müssen können hier jetzt damit
        zuerst zahl zahlen ergebnis drei vier fünf sechs sieben acht neun zehn zwei immer nie erste nächste jeder ist's""",
    "fr": """le la les de des du un une et est en que qui dans pour pas sur au avec par plus ne se ce il elle nous vous ils sont
        mais ou où son sa ses leur cette ces été être avoir fait comme tout si je tu on aux donc car alors très aussi bien
        sans peut même entre après l' d' qu' c' j' n' s' m' t' puis chaque quand deux
        d'abord ainsi puisque résultat nombre nombres trois quatre cinq huit neuf fois toujours jamais calculer trouver
        prochain""",
    "es": """el la los las de del y en que un una es por con no se para su al lo como más pero sus le ya o este sí porque esta
        entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros ese
        eso ante ellos esto mí antes algunos qué unos yo otro otras él tanto esa estos mucho son está están ser tiene puede
        entonces cada dos así ahora
        luego primero después siguiente número números resultado tenemos sabemos tres cuatro cinco seis siete ocho nueve
        diez veces siempre nunca calcular""",
    "pt": """o a os as de do da dos das e em um uma que é por com não se para na no nos nas ao aos mais como mas foi ele ela seu
        sua ou quando muito já está também só pelo pela até isso entre depois sem mesmo eu você nós são ser tem pode então cada
        seus suas porque esta este isto há onde dois assim
        primeiro próximo número números resultado temos sabemos três quatro cinco seis sete oito nove dez vezes sempre
        nunca calcular""",
    "it": """il lo la i gli le di del della dei delle un una uno e è che in non per con si da al alla sono come ma anche più nel
        nella questo questa se ci io lui lei noi loro ha ho essere stato dove quando chi perché molto così poi quindi ogni due
        tutti tutto ancora suo sua dal dalla sul sulla l' dell' nell' all' un' c' d' quest' può fare
        prima dopo numero numeri risultato abbiamo sappiamo tre quattro cinque sei sette otto nove dieci volte sempre mai
        calcolare""",
    "nl": """de het een en van ik te dat die in is niet zijn op aan met als voor er maar om hem dan zou wat mijn men dit zo door
        over ze zich bij ook tot je mij uit der daar haar naar heb hoe heeft hebben deze u want nog zal me zij nu ge geen
        omdat iets worden toch al waren veel meer doen moet zonder kan hun dus alles onder ja eens hier wie werd wij we
        elke twee dus eerst
        getal getallen resultaat drie vier vijf zes zeven negen tien keer altijd nooit eerste volgende""",
    "sv": """och i att det som en på är av för med den till inte om ett han men var jag sig från vi så kan när år säger hon under
        också efter eller nu sin där vid mot ska skulle kommer ut får finns vara hade alla andra mycket här då sedan över bara
        in blir upp även vad dem din mitt detta varje två""",
    "da": """og i at det som en på er af for med den til ikke om et han men var jeg sig fra vi så kan når år hun under også
        efter eller nu sin der ved mod skal ville kommer ud får findes være havde alle andre meget her da siden over bare ind
        bliver op selv hvad dem din mit dette hver to blev noget""",
    "no": """og i at det som en på er av for med den til ikke om et han men var jeg seg fra vi så kan når år hun under også
        etter eller nå sin der ved mot skal ville kommer ut får finnes være hadde alle andre mye her da siden over bare inn
        blir opp selv hva dem din mitt dette hver to ble noe""",
    "fi": """ja on ei se että oli hän mutta ovat ole kuin myös mitä kun niin joka jos tai vain sen minä sinä me te he tämä nyt
        niiden mukaan jälkeen kanssa vielä voi olla olivat ollut siitä siis sitten kaikki sekä eli jotka tässä hyvin enemmän
        kuten jo koska ennen mikä miten minun sinun joten yksi kaksi""",
    "pl": """i w z na do się nie to jest że o jak ale po co tak za od przez dla czy tylko już być ten ta te tego tym są był była
        było które który która może bardzo przy także więc gdy lub jego jej ich aby oraz jako nad pod bez między każdy dwa
        teraz wtedy ponieważ""",
    "cs": """a se v je na že to s z o do i jsem ale jako za by pro tak po jsou co už nebo aby bude jen také podle od byl byla bylo
        který která které když si ve k u jeho jejich než až může být pak tedy proto každý dva není protože""",
    "hu": """a az és hogy nem is egy ez csak de volt már még meg van mint ha akkor azt el ki így mert vagy lesz kell lehet után
        minden ezt ami aki nagyon mi ő én te ők voltak sem pedig tehát két most amely""",
    "ro": """și în de la cu pe care nu este un o că din mai au fost pentru sau se ce dar am sunt ca să al ale a lui lor prin
        după fi era fără foarte când dacă acest această aceste toate cum doar între până noi voi ei ele fiecare două deci
        atunci""",
    "tr": """ve bir bu da de için ile çok ne o daha gibi olarak kadar var en ama sonra olan her ben sen biz siz onlar değil mi
        mı ki ise şu olduğu oldu yok hem veya çünkü göre bunu bana sana nasıl iki şimdi yani eğer""",
    "vi": """và là của có không một những các được cho trong với này để người đã đến khi từ như về ra tôi bạn anh chị em ông bà họ
        chúng ta rất cũng nhiều nhưng vì nếu thì mà ở trên dưới sẽ đang phải làm lại nào gì sau trước hai mỗi vậy do đó theo""",
    "id": """yang dan di dari untuk dengan pada ini itu adalah tidak ke akan juga dalam saya kami kita mereka dia anda ada oleh
        karena atau sebagai bisa dapat lebih telah sudah seperti setelah bahwa banyak satu dua lain sangat harus jika maka
        tersebut hanya belum bukan kamu setiap""",
    "sw": """na ya wa kwa ni katika la za cha kuwa hii huu hiyo hilo yake wake yao wao kama lakini au pia si sana kila ambayo
        ambao watu mtu yangu wangu yetu wetu baada kabla tu hapa huko mimi wewe sisi yeye wao ili moja mbili zaidi nini vya""",
    "ca": """el la els les de del i en que un una és per amb no es al dels com més però també són aquest aquesta hi ha ser molt
        quan on seva seu seus fins perquè entre sobre aquests tot ens l' d' s' n' cada dos doncs""",
    "hr": """i u je na se da za su s od ne što kao to o a ili ali iz po koji koja koje bi sam smo biti bio bila više kako samo
        nije već do prema nakon može svoj sve jer kada ako te ovo taj dva svaki""",
    "tl": """ang ng sa na mga ay at ito si ni para kung hindi may siya ko mo niya ako ikaw tayo kami sila kanilang isang nang
        din rin lang pa po mayroon dahil upang kaya bawat dalawa""",
    "ru": """и в не на я быть он с что а по это она этот к но они мы весь который из у за вы так же от сказать для ты о год
        мог человек такой то или его бы когда только уже все как если нет был была было были есть при до где чтобы их ее её
        эта эти этого том очень может тогда потому также мне нас два каждый""",
    "uk": """і в не на я бути він з що а по це вона цей до але вони ми весь який із у за ви так ж від для ти о або його б коли
        тільки вже все як якщо ні був була було були є при де щоб їх її ця ці цього дуже може тоді тому також мені нас та й
        два кожен""",
    "bg": """и в не на аз да той с че а по това тя този към но те ние от за вие така ще или му би когато само вече всичко как
        ако няма беше бяха е са при до където за си се съм им ѝ тази тези много може тогава също има ми ни два всеки които
        който която което""",
    "sr": """и у не на ја да он са што а по то она овај ка али они ми из за ви тако ће или га би када само већ све како ако
        нема био била било били је су при до где се сам њих њен ова ове веома може тада такође има што два сваки који која
        које""",
    "ar": """في من على إلى أن هذا هذه التي الذي عن مع لا ما كان كانت هو هي أو ثم قد كل بعد قبل عند إن لم لن بين ذلك تلك أنا
        نحن أنت هم ليس حيث إذا لكن أي غير منذ حتى كما فقط يكون جدا""",
    "fa": """و در به از که این را با است برای آن یک خود تا کرد بر هم نیز می شود شد شده ما شما من او آنها هر یا اگر اما باید
        های ها بود دارد داشت کنید کند است، چه همه بین پس نیست هستند بسیار دو""",
    "ur": """کے کی میں ہے اور سے کا کو اس نے یہ پر ہیں کہ ایک بھی تھا وہ ہو نہیں ان کر جو تو تھی ہم آپ لیے ساتھ کیا گیا اپنے
        تھے ہوتا ہوں یا بعد کوئی سب پھر اگر بہت دو ہر""",
    "hi": """के है में की और से को का पर यह एक हैं कि इस ने भी कर हो लिए था वह जो नहीं तो साथ ही या थी हम आप वे थे उस अपने
        होता बाद किया जा रहा अगर लेकिन बहुत दो हर मैं क्या कोई""",
    "mr": """आहे आणि या हे ते च्या आहेत मध्ये की तो ती होते होता करून पण मी आपण त्या एक नाही तर साठी केले असे असून झाले मला
        त्यांनी त्याच्या आपल्या किंवा जर खूप दोन प्रत्येक काय होती हा ही""",
    "ne": """छ र को मा हो लाई पनि छन् यो एक ले गर्न भएको बाट थियो तर हुन्छ म हामी तपाईं उनी त्यो भने गरेको हुन् वा के नै गर्नु सबै
        साथै लागि धेरै छैन यदि दुई प्रत्येक मेरो हाम्रो""",
}

LETTERS = {
    "de": "ßäöü",
    "fr": "çœêèàâîôùûë",
    "es": "ñáíóú",
    "pt": "ãõçáâêóí",
    "it": "èìòàù",
    "sv": "åäö",
    "da": "æøå",
    "no": "æøå",
    "fi": "äö",
    "pl": "ąćęłńśźżó",
    "cs": "ěščřžýůťďňáíé",
    "hu": "őűáéíóöü",
    "ro": "ășțâîţş",
    "tr": "ğışçöü",
    "vi": "ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹãõĩũáàéèíìóòúùý",
    "hr": "čćđšž",
    "ca": "çàèòí",
    "ru": "ыэёъ",
    "uk": "іїєґ",
    "bg": "ъѝ",
    "sr": "ђјљњћџ",
    "ar": "ةىإأؤئ",
    "fa": "پچژگیک",
    "ur": "ٹڈڑںےھہگچپیک",
    "mr": "ळ",
}
